//! `[store]`: where what is kept for good is kept.

use super::setting::settings;

settings! {
    /// How a store is opened, be it the MongoDB of `[mongo]` or the file `store.db` in the data directory.
    pub struct Store in "store." {
        /// Whether a store whose schema is older than this podherald is brought up to date when it is opened; if not,
        /// `podherald migrate` must have done it. The embedded store is always brought up to date.
        /// `PODHERALD_STORE__MIGRATE_AT_START`, default `true`.
        migrate_at_start: bool = true,
    }
}
