//! podherald's server. What it decides is decided in `podherald-core`; here is what it does.
//!
//! In reading order: [`journal`], where everything is kept and read; [`monitor`], the spine from looks at pods to durable
//! events, with [`output_store`] for what programs print and [`blob`] for what of it others are to read; [`relay`], which carries events to the [`sink`]s, [`webhook`]s among them; [`http`], which shows them; [`app`], which puts them together.
//! [`expected`] asks it for what a monitor may have lost. [`replica`] shows in a process that watches nothing what others tell, [`upstream`] asks the monitor for the rest. [`publisher`] and [`inbox`] are the way out and in of the other roles, [`store`] is where what they have stays. Around them: [`config`] and [`cli`] say what is wanted, [`supervisor`] starts and ends tasks, [`lock`] keeps a second
//! process off, [`cluster`] connects to Kubernetes, [`open_files`] makes room for connections, [`health`] says whether all is well, [`retention`] takes away
//! what is old, [`backoff`] and [`jitter`] say when to try again, [`clock`] is the time of day, [`telemetry`] and [`wording`] are for people who read logs, [`crash`] for tests
//! that kill. [`explain`] is the mapper without a server, [`contract`] what readers of events may rely on.

pub mod app;
pub mod backoff;
pub mod blob;
pub mod cli;
pub mod clock;
pub mod cluster;
pub mod config;
pub mod contract;
pub mod crash;
pub mod demo;
pub mod embedded;
pub mod expected;
pub mod explain;
pub mod health;
pub mod http;
pub mod inbox;
pub mod jitter;
pub mod journal;
pub mod leadership;
pub mod live_output;
pub mod lock;
pub mod monitor;
pub mod named_file;
pub mod open_files;
pub mod output_store;
pub mod publisher;
pub mod relay;
pub mod replica;
pub mod retention;
pub mod sink;
pub mod store;
pub mod supervisor;
pub mod telemetry;
mod topics;
pub mod upstream;
pub mod webhook;
pub mod wording;
pub mod worker;
