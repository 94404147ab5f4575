//! What a Kubernetes API does, each seen on the real server and held against the embedded cluster.
//!
//! Where the two differ the embedded one is wrong.

/// Each of these is looked at in a namespace of its own. Calls a macro with the module's name and all their names.
macro_rules! behaviours {
    ($module:ident: $($(#[$doc:meta])* async fn $name:ident($at:ident: &Place) $body:block)*) => {
        $($(#[$doc])* pub(crate) async fn $name($at: &Place) $body)*

        macro_rules! for_each {
            ($then:ident) => { $then! { $module: $($name,)* } };
        }
        pub(crate) use for_each;
    };
}

macro_rules! rooms {
    ($($module:ident,)*) => {
        $(pub(crate) mod $module;)*

        /// Calls a macro once for each module, with its name and the names of its behaviours.
        macro_rules! for_each_behaviour {
            ($then:ident) => { $(behaviours::$module::for_each!($then);)* };
        }
        pub(crate) use for_each_behaviour;
    };
}
rooms! { bad_input, deletions, kinds, lists, logs, objects, updates, watches, }
