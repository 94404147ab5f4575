//! `podherald config`: the effective settings as a file that could be used as they are, but for the secrets.

use super::{Config, Effective, Origin};

/// Every setting with its documentation as comments, its effective value and, unless it is the default, who set it.
pub fn document(effective: &Effective) -> String {
    let mut text = String::new();
    let mut current = "";
    for setting in Config::settings() {
        let (section, name) = setting.key.split_once('.').unwrap_or(("", setting.key));
        if section != current {
            text += &format!("[{section}]\n\n");
            current = section;
        }
        for line in setting.doc {
            text += &format!("#{line}\n");
        }
        let origin = effective.value(setting.key).1;
        text += &format!("{name} = {}", effective.shown(setting));
        if *origin != Origin::Default {
            // A line break in a file's name would end the comment.
            text += &format!(" # set by {}", origin.to_string().escape_debug());
        }
        text += "\n\n";
    }
    text.truncate(text.trim_end().len());
    text + "\n"
}
