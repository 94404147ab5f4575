//! `podherald config`: the effective settings as a file that could be used as they are, but for the secrets.

use super::{Config, Effective, Origin, Setting, Webhook, webhook};

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
        describe(&mut text, effective, setting, name);
    }
    for (table, of) in effective.webhooks() {
        text += &format!("[{}.{table}]\n\n", webhook::SECTION);
        text += &webhook_settings(of);
    }
    if effective.webhooks().is_empty() {
        let mut table = format!("[{}.{}]\n\n", webhook::SECTION, webhook::PLACEHOLDER);
        table += &webhook_settings(&Effective::of_webhook_defaults());
        for line in table.lines() {
            text += format!("# {line}").trim_end();
            text += "\n";
        }
    }
    text.truncate(text.trim_end_matches(['#', ' ', '\n']).len());
    text + "\n"
}

fn webhook_settings(effective: &Effective) -> String {
    let mut text = String::new();
    for setting in Webhook::settings() {
        let name = setting.key.rsplit('.').next().unwrap_or(setting.key);
        describe(&mut text, effective, setting, name);
    }
    text
}

fn describe(text: &mut String, effective: &Effective, setting: &Setting, name: &str) {
    for line in setting.doc {
        *text += &format!("#{line}\n");
    }
    let origin = effective.value(setting.key).1;
    *text += &format!("{name} = {}", effective.shown(setting));
    if *origin != Origin::Default {
        // A line break in a file's name would end the comment.
        *text += &format!(" # set by {}", origin.to_string().escape_debug());
    }
    *text += "\n\n";
}
