//! Where settings come from: the defaults, the file, the environment, the flags; the later outranks the earlier.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{OsStr, OsString},
    fmt, io,
    path::{Path, PathBuf},
};

use toml::{Table, Value as Toml};

use super::{Config, Error, Setting, Webhook, error::brief, value::Value, webhook};

/// The file that is read when neither `--config` nor `PODHERALD_CONFIG` names one; it may be missing, then.
const DEFAULT_FILE: &str = "podherald.toml";
const PREFIX: &str = "PODHERALD_";
/// Names the file; not a setting itself.
const CONFIG_VARIABLE: &str = "PODHERALD_CONFIG";
/// Names a crash point, where these are compiled in; elsewhere it is as unknown as any other.
const CRASH_VARIABLE: Option<&str> = if cfg!(feature = "crash-points") { Some("PODHERALD_CRASH_AT") } else { None };

/// What the process was given.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// `--config`.
    pub file: Option<PathBuf>,
    /// The process's environment; only `PODHERALD_*` counts.
    pub environment: Vec<(OsString, OsString)>,
    /// Settings by flag.
    pub flags: Vec<Flag>,
}

impl Sources {
    /// This process's environment and these flags.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
    pub fn of_process(file: Option<PathBuf>, flags: Vec<Flag>) -> Self {
        Self { file, environment: std::env::vars_os().collect(), flags }
    }
}

/// A setting given on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flag {
    /// The flag as errors call it: `--listen`, `--set http.listen`.
    pub name: String,
    /// The key that it sets.
    pub key: String,
    /// The value, in the notation of variables.
    pub value: String,
}

/// Who set a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody.
    Default,
    /// This file.
    File(PathBuf),
    /// The environment.
    Environment,
    /// This environment variable.
    Variable(String),
    /// This flag.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("the default"),
            Self::Environment => f.write_str("the environment"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Variable(name) | Self::Flag(name) => f.write_str(name),
        }
    }
}

/// Every setting's value after all sources have spoken, not yet read into its type.
#[derive(Debug, Clone)]
pub struct Effective {
    values: BTreeMap<&'static str, (Toml, Origin)>,
    /// The tables `[webhook.NAME]` by name, each with the settings of [`Webhook`] alone.
    webhooks: BTreeMap<String, Self>,
    /// Which of those tables this is; it stands for `NAME` in the keys.
    name: Option<String>,
}

/// A setting, and the table that it is of if there are several.
type Found = (&'static Setting, Option<String>);

impl Effective {
    /// Gathers the sources.
    ///
    /// # Errors
    /// A file that cannot be read or is not TOML, and any key, variable or flag that names no setting.
    pub fn gather(sources: &Sources) -> Result<Self, Error> {
        let mut effective = Self::defaults();
        if let Some((path, table)) = read_file(sources)? {
            effective.add_file(&path, &table)?;
        }
        // An empty variable is how many tools spell an unset one.
        for (name, value) in sources.environment.iter().filter(|(_, value)| !value.is_empty()) {
            effective.add_variable(name, value)?;
        }
        for flag in &sources.flags {
            effective.add_flag(flag)?;
        }
        Ok(effective)
    }

    pub(super) fn defaults() -> Self {
        Self::of(&Config::settings(), None)
    }

    fn of(settings: &[&'static Setting], name: Option<String>) -> Self {
        let default = |setting: &Setting| {
            setting.default.parse().expect("defaults are TOML; every_default_is_right reads them all")
        };
        let values = settings.iter().map(|setting| (setting.key, (default(setting), Origin::Default))).collect();
        Self { values, webhooks: BTreeMap::new(), name }
    }

    /// A table `[webhook.NAME]` in which nothing is set.
    pub(super) fn of_webhook_defaults() -> Self {
        Self::of(&Webhook::settings(), None)
    }

    /// The tables `[webhook.NAME]`, by name.
    pub(super) fn webhooks(&self) -> &BTreeMap<String, Self> {
        &self.webhooks
    }

    fn webhook(&mut self, name: String) -> &mut Self {
        self.webhooks.entry(name).or_insert_with_key(|name| Self::of(&Webhook::settings(), Some(name.clone())))
    }

    fn set(&mut self, (setting, table): Found, value: Toml, origin: Origin) {
        let values = match table {
            Some(name) => &mut self.webhook(name).values,
            None => &mut self.values,
        };
        values.insert(setting.key, (value, origin));
    }

    /// What may be printed of a setting's value.
    pub(super) fn shown(&self, setting: &Setting) -> Toml {
        (setting.shown)(self.value(setting.key).0)
    }

    /// A setting's value and who set it.
    pub fn value(&self, key: &str) -> (&Toml, &Origin) {
        let (value, origin) = self.values.get(key).expect("every declared setting has a value, its default at least");
        (value, origin)
    }

    pub(super) fn get<T: Value>(&self, key: &'static str) -> Result<T, Error> {
        T::from_toml(self.value(key).0).ok_or_else(|| self.refuse(key, &T::expects()))
    }

    /// The error that says what is wrong with a setting, and what would be right.
    pub(super) fn refuse(&self, key: &'static str, right: &str) -> Error {
        let setting = all_settings().into_iter().find(|setting| setting.key == key).expect("only settings are refused");
        let origin = self.value(key).1.clone();
        let key = key_of(setting, self.name.as_deref());
        Error::Invalid { key, origin, found: brief(&self.shown(setting)), right: right.to_owned() }
    }

    fn add_file(&mut self, path: &Path, table: &Table) -> Result<(), Error> {
        let settings = Config::settings();
        let sections = settings.iter().filter_map(|setting| setting.key.split_once('.'));
        let mut sections: BTreeSet<&str> = sections.map(|(section, _)| section).collect();
        sections.insert(webhook::SECTION);
        let origin = Origin::File(path.to_owned());
        for (name, value) in table {
            let leaves: Vec<(String, &Toml)> = match value {
                Toml::Table(section) if name == webhook::SECTION => self.tables_of_webhooks(section),
                Toml::Table(section) if sections.contains(name.as_str()) || !section.is_empty() => {
                    section.iter().map(|(key, value)| (format!("{name}.{key}"), value)).collect()
                }
                _ => vec![(name.clone(), value)],
            };
            for (key, value) in leaves {
                let Some(found) = find(&key) else {
                    let is_section = sections.contains(key.as_str());
                    let like = if is_section { Some(section_hint(&key)) } else { similar_key(&key) };
                    return Err(Error::Unknown { what: key, origin, like });
                };
                self.set(found, value.clone(), origin.clone());
            }
        }
        Ok(())
    }

    /// The settings in `[webhook.NAME]` tables. A table with nothing in it counts: it lacks what it must have.
    fn tables_of_webhooks<'a>(&mut self, section: &'a Table) -> Vec<(String, &'a Toml)> {
        let mut leaves = Vec::new();
        for (name, value) in section {
            let prefix = format!("{}.{name}", webhook::SECTION);
            match value {
                Toml::Table(table) if webhook::is_name(name) => {
                    self.webhook(name.clone());
                    leaves.extend(table.iter().map(|(key, value)| (format!("{prefix}.{key}"), value)));
                }
                _ => leaves.push((prefix, value)),
            }
        }
        leaves
    }

    fn add_variable(&mut self, name: &OsStr, value: &OsStr) -> Result<(), Error> {
        let name = name.to_string_lossy();
        let other = name == CONFIG_VARIABLE || Some(&*name) == CRASH_VARIABLE;
        if !name.starts_with(PREFIX) || other || is_service_link(&name, &value.to_string_lossy()) {
            return Ok(());
        }
        let Some((setting, table)) = find_variable(&name) else {
            let like = similar(&name[PREFIX.len()..]).map(Setting::variable);
            return Err(Error::Unknown { what: name.into_owned(), origin: Origin::Environment, like });
        };
        let origin = Origin::Variable(name.into_owned());
        let Some(text) = value.to_str() else {
            let lossy = Toml::String(value.to_string_lossy().into_owned());
            let shown = (setting.shown)(&lossy);
            let found = if shown == lossy { format!("{value:?}") } else { brief(&shown) };
            let (key, right) = (key_of(setting, table.as_deref()), "text in UTF-8".into());
            return Err(Error::Invalid { key, origin, found, right });
        };
        self.set((setting, table), (setting.from_text)(text), origin);
        Ok(())
    }

    pub(super) fn add_flag(&mut self, flag: &Flag) -> Result<(), Error> {
        let origin = Origin::Flag(flag.name.clone());
        let Some(found) = find(&flag.key) else {
            return Err(Error::Unknown { what: flag.key.clone(), origin, like: similar_key(&flag.key) });
        };
        let value = (found.0.from_text)(&flag.value);
        self.set(found, value, origin);
        Ok(())
    }
}

/// Those that there are once, and those of a table `[webhook.NAME]`.
fn all_settings() -> Vec<&'static Setting> {
    let mut settings = Config::settings();
    settings.extend(Webhook::settings());
    settings
}

/// The key as its reader writes it.
fn key_of(setting: &Setting, table: Option<&str>) -> String {
    table.map_or_else(|| setting.key.to_owned(), |name| setting.key.replacen(webhook::PLACEHOLDER, name, 1))
}

fn find(key: &str) -> Option<Found> {
    if let Some(setting) = Config::settings().into_iter().find(|setting| setting.key == key) {
        return Some((setting, None));
    }
    let (name, _) = webhook::split(key)?;
    let is_it = |setting: &&Setting| key_of(setting, Some(name)) == key;
    Some((Webhook::settings().into_iter().find(is_it)?, Some(name.to_owned())))
}

fn find_variable(variable: &str) -> Option<Found> {
    if let Some(setting) = Config::settings().into_iter().find(|setting| setting.variable() == variable) {
        return Some((setting, None));
    }
    let is_upper = !variable.contains(|c: char| c.is_ascii_lowercase());
    let key = variable.strip_prefix(PREFIX)?.replace("__", ".").to_lowercase();
    is_upper.then(|| find(&key)).flatten()
}

fn section_hint(section: &str) -> String {
    if section == webhook::SECTION { webhook::HINT.to_owned() } else { format!("the section [{section}]") }
}

fn similar_key(key: &str) -> Option<String> {
    let Some((name, field)) = webhook::split(key) else {
        let is_webhook = key.split_once('.').is_some_and(|(section, _)| section == webhook::SECTION);
        return if is_webhook { Some(webhook::HINT.to_owned()) } else { similar(key).map(|like| like.key.to_owned()) };
    };
    let template = format!("{}.{}.{field}", webhook::SECTION, webhook::PLACEHOLDER);
    similar(&template).map(|like| key_of(like, Some(name)))
}

fn read_file(sources: &Sources) -> Result<Option<(PathBuf, Table)>, Error> {
    let variable = sources.environment.iter().find(|(name, _)| name == CONFIG_VARIABLE).map(|(_, value)| value);
    let (named, origin) = match (&sources.file, variable) {
        (Some(path), _) => (Some(path.clone()), Origin::Flag("--config".into())),
        (None, Some(path)) => (Some(path.into()), Origin::Variable(CONFIG_VARIABLE.into())),
        (None, None) => (None, Origin::Default),
    };
    let path = named.clone().unwrap_or_else(|| DEFAULT_FILE.into());
    match std::fs::read_to_string(&path) {
        Ok(text) => match text.parse::<Table>() {
            Ok(table) => Ok(Some((path, table))),
            Err(error) => {
                let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
                let line = before.matches('\n').count() + 1;
                Err(Error::Syntax { path, line, reason: error.message().to_owned() })
            }
        },
        Err(error) if named.is_none() && error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Unreadable { path, origin, source }),
    }
}

/// Kubernetes gives every pod variables for each Service of its namespace; those of a Service called `podherald` begin
/// as ours do, and must not keep it from starting.
fn is_service_link(name: &str, value: &str) -> bool {
    let url = ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme));
    let port = name.rsplit_once("_PORT_").is_some_and(|(_, of)| {
        let mut parts = of.split('_');
        parts.next().is_some_and(|number| number.parse::<u16>().is_ok())
            && matches!(parts.next(), Some("TCP" | "UDP" | "SCTP"))
            && matches!(parts.next(), None | Some("PROTO" | "PORT" | "ADDR"))
    });
    name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
        || port
        || (name.ends_with("_PORT") && url)
}

/// The setting that somebody who wrote this may have meant.
fn similar(wrong: &str) -> Option<&'static Setting> {
    let settings = all_settings();
    let plain = |text: &str| text.to_lowercase().replace("__", "_").replace(['.', '-'], "_");
    let last = |text: &str| text.rsplit('.').next().map(plain);
    let wrong_plain = plain(wrong);
    let nearest = settings
        .iter()
        .map(|setting| (distance(&plain(setting.key), &wrong_plain), *setting))
        .min_by_key(|(distance, _)| *distance);
    nearest
        .filter(|(distance, setting)| *distance <= setting.key.len() / 4)
        .map(|(_, setting)| setting)
        .or_else(|| settings.iter().copied().find(|setting| last(setting.key) == last(&wrong.replace("__", "."))))
}

/// Letters to insert, remove or replace to make the one into the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn file(text: &str) -> Result<Effective, Error> {
        let mut effective = Effective::defaults();
        effective.add_file(Path::new("p.toml"), &text.parse().unwrap()).map(|()| effective)
    }

    fn variable(name: &str, value: &str) -> Result<Effective, Error> {
        let mut effective = Effective::defaults();
        effective.add_variable(OsStr::new(name), OsStr::new(value)).map(|()| effective)
    }

    fn text<T>(result: Result<T, Error>) -> String {
        result.err().unwrap().to_string()
    }

    #[test]
    fn an_unknown_key_names_itself_and_what_may_have_been_meant() {
        for (toml, expected) in [
            ("http.lisen = 1", "there is no setting http.lisen (p.toml); did you mean http.listen?"),
            ("htpp.listen = 1", "there is no setting htpp.listen (p.toml); did you mean http.listen?"),
            ("retention = 1", "there is no setting retention (p.toml); did you mean journal.retention?"),
            ("http = 1", "there is no setting http (p.toml); did you mean the section [http]?"),
            ("[plugins]", "there is no setting plugins (p.toml); `podherald config` lists all settings"),
            ("nats.subject = []", "there is no setting nats.subject (p.toml); `podherald config` lists all settings"),
        ] {
            assert_eq!(text(file(toml)), expected);
        }
    }

    #[test]
    fn an_unknown_variable_names_itself_and_what_may_have_been_meant() {
        for (name, expected) in [
            ("PODHERALD_HTTP__LISEN", "did you mean PODHERALD_HTTP__LISTEN?"),
            ("PODHERALD_HTTP_LISTEN", "did you mean PODHERALD_HTTP__LISTEN?"),
            ("PODHERALD_http__listen", "did you mean PODHERALD_HTTP__LISTEN?"),
            ("PODHERALD_DATADIR", "did you mean PODHERALD_DATA_DIR?"),
            ("PODHERALD_HTTP_PORT", "`podherald config` lists all settings"),
            ("PODHERALD_NO_SUCH__THING", "`podherald config` lists all settings"),
        ] {
            let expected = format!("there is no setting {name} (the environment); {expected}");
            assert_eq!(text(variable(name, "8080")), expected);
        }
    }

    #[test]
    fn variables_of_a_kubernetes_service_called_podherald_are_ignored() {
        for (name, value) in [
            ("PODHERALD_SERVICE_HOST", "10.0.0.7"),
            ("PODHERALD_SERVICE_PORT", "80"),
            ("PODHERALD_SERVICE_PORT_HTTP", "80"),
            ("PODHERALD_PORT", "tcp://10.0.0.7:80"),
            ("PODHERALD_PORT_80_TCP", "tcp://10.0.0.7:80"),
            ("PODHERALD_PORT_80_TCP_PROTO", "tcp"),
            ("PODHERALD_PORT_80_TCP_PORT", "80"),
            ("PODHERALD_PORT_80_TCP_ADDR", "10.0.0.7"),
            ("PODHERALD_API_SERVICE_HOST", "10.0.0.8"),
        ] {
            assert!(variable(name, value).is_ok(), "{name}");
        }
        assert!(variable("PODHERALD_PORT", "8080").is_err(), "somebody meant the listener's port");
    }

    #[test]
    fn the_variable_of_crash_points_is_known_only_where_there_are_any() {
        assert_eq!(variable("PODHERALD_CRASH_AT", "append:3").is_ok(), cfg!(feature = "crash-points"));
    }

    #[test]
    fn an_empty_variable_counts_as_unset() {
        let environment = vec![("PODHERALD_DATA_DIR".into(), "".into()), ("PODHERALD_MONGO__URI".into(), "".into())];
        let effective = Effective::gather(&Sources { environment, ..Sources::default() }).unwrap();
        assert_eq!(effective.value("data_dir").1, &Origin::Default);
    }

    #[test]
    fn the_environment_is_typed_by_the_setting() {
        let effective = variable("PODHERALD_HTTP__MAX_CONNECTIONS", "7").unwrap();
        assert_eq!(effective.value("http.max_connections").0, &Toml::Integer(7));
        let effective = variable("PODHERALD_TELEMETRY__ENVIRONMENT", "7").unwrap();
        assert_eq!(effective.value("telemetry.environment").0, &Toml::String("7".into()));
    }

    #[test]
    fn label_selectors_are_separated_by_semicolons() {
        let effective = variable("PODHERALD_KUBE__LABEL_SELECTORS", "app=a,tier in (x,y); eval-id").unwrap();
        let expected = Toml::Array(vec!["app=a,tier in (x,y)".into(), "eval-id".into()]);
        assert_eq!(effective.value("kube.label_selectors").0, &expected);
    }

    #[cfg(unix)]
    #[test]
    fn a_variable_that_is_not_utf8_is_refused() {
        use std::os::unix::ffi::OsStrExt;
        let mut effective = Effective::defaults();
        let error = effective.add_variable(OsStr::new("PODHERALD_DATA_DIR"), OsStr::from_bytes(b"/\xff")).unwrap_err();
        assert_eq!(error.to_string(), r#"data_dir is "/\xFF" (PODHERALD_DATA_DIR), but must be text in UTF-8"#);
    }

    #[test]
    fn distance_counts_letters() {
        assert_eq!(distance("listen", "lisen"), 1);
        assert_eq!(distance("listen", "listne"), 2);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", "abc"), 0);
    }
}
