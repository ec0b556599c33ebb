//! The settings of a session that Postgres' clients ask for and set.

use std::collections::BTreeMap;
use std::time::Duration;

use flumen_lake::engine::span;

use crate::failure::{Failure, code};

/// The version of Postgres whose protocol, types and catalogs are spoken.
pub(crate) const SERVER_VERSION: &str = "15.0";
const SERVER_VERSION_NUM: &str = "150000";

/// A setting: its name, its value at first, what it is about, and what may be done with it.
struct Setting(&'static str, &'static str, &'static str, Rule);

/// What may be done with a setting.
enum Rule {
    /// It can be anything.
    Free,
    /// It can be one of these, and means no more than that.
    OneOf(&'static [&'static str]),
    /// It is a time in milliseconds.
    Time,
    /// It is a time zone.
    Zone,
    /// It cannot be changed.
    Fixed,
}

use Rule::{Fixed, Free, OneOf, Time, Zone};

/// The time zone of sessions that choose none.
pub(crate) const UTC: &str = "UTC";

const ON_OFF: &[&str] = &["on", "off", "true", "false", "yes", "no", "0", "1"];

const SETTINGS: &[Setting] = &[
    Setting("application_name", "", "What the client calls itself", Free),
    Setting("bytea_output", "hex", "How bytes are written", OneOf(&["hex"])),
    Setting("check_function_bodies", "on", "Has no effect", OneOf(ON_OFF)),
    Setting("client_encoding", "UTF8", "The encoding of text", OneOf(&["utf8", "utf-8", "unicode", "sql_ascii"])),
    Setting("client_min_messages", "notice", "Which messages are sent", Free),
    Setting("datestyle", "ISO, MDY", "How dates are written", OneOf(&["iso", "iso, mdy", "iso, dmy", "iso, ymd"])),
    Setting("default_table_access_method", "delta", "How tables are kept", Fixed),
    Setting("default_tablespace", "", "There is only one", Free),
    Setting("default_transaction_deferrable", "off", "Has no effect", OneOf(ON_OFF)),
    Setting("default_transaction_isolation", "repeatable read", "What a transaction sees", Free),
    Setting("default_transaction_read_only", "off", "Whether transactions only read", OneOf(ON_OFF)),
    Setting("extra_float_digits", "1", "Numbers have all their digits at any value", Free),
    Setting("idle_in_transaction_session_timeout", "0", "How long a transaction may rest", Time),
    Setting("in_hot_standby", "off", "Whether this is a copy of another server", Fixed),
    Setting("integer_datetimes", "on", "Times are whole microseconds", Fixed),
    Setting("intervalstyle", "postgres", "How intervals are written", OneOf(&["postgres"])),
    Setting("jit", "off", "Has no effect", OneOf(ON_OFF)),
    Setting("lc_collate", "C", "The order of text", Fixed),
    Setting("lc_ctype", "C.UTF-8", "What letters are", Fixed),
    Setting("lock_timeout", "0", "Nothing is locked", Time),
    Setting("max_identifier_length", "63", "The longest name", Fixed),
    Setting("max_index_keys", "32", "Columns of a key", Fixed),
    Setting("row_security", "off", "There is none", OneOf(ON_OFF)),
    Setting("search_path", "\"$user\", public", "Where names are looked for", Free),
    Setting("server_encoding", "UTF8", "The encoding of text", Fixed),
    Setting("server_version", SERVER_VERSION, "The version whose language is spoken", Fixed),
    Setting("server_version_num", SERVER_VERSION_NUM, "The same as a number", Fixed),
    Setting("standard_conforming_strings", "on", "A backslash is a backslash", OneOf(&["on", "true", "1", "yes"])),
    Setting("statement_timeout", "0", "How long a statement may take", Time),
    Setting("synchronous_commit", "on", "A commit is on disk", OneOf(ON_OFF)),
    Setting("timezone", UTC, "The time zone in which times are shown", Zone),
    Setting("transaction_deferrable", "off", "Has no effect", OneOf(ON_OFF)),
    Setting("transaction_isolation", "repeatable read", "What this transaction sees", Free),
    Setting("transaction_read_only", "off", "Whether this transaction only reads", OneOf(ON_OFF)),
    Setting("xmloption", "content", "There is no XML", Free),
];

/// Settings of which the client is told when they change, as it spells them.
pub(crate) const REPORTED: &[&str] = &[
    "application_name",
    "client_encoding",
    "DateStyle",
    "default_transaction_read_only",
    "in_hot_standby",
    "integer_datetimes",
    "IntervalStyle",
    "is_superuser",
    "server_encoding",
    "server_version",
    "session_authorization",
    "standard_conforming_strings",
    "TimeZone",
];

/// The settings of one session.
#[derive(Debug, Clone)]
pub(crate) struct SessionSettings {
    values: BTreeMap<&'static str, String>,
    user: String,
    superuser: bool,
}

impl SessionSettings {
    /// Those of a new session.
    pub fn new(user: &str, superuser: bool) -> Self {
        Self { values: BTreeMap::new(), user: user.to_owned(), superuser }
    }

    /// Whether `name` is a setting of ours. Others are the engine's.
    pub fn knows(name: &str) -> bool {
        find(name).is_some() || matches!(name, "is_superuser" | "session_authorization" | "role")
    }

    /// The value of `name`.
    pub fn get(&self, name: &str) -> Option<String> {
        let name = name.to_lowercase();
        match name.as_str() {
            "is_superuser" => return Some(if self.superuser { "on" } else { "off" }.to_owned()),
            "session_authorization" => return Some(self.user.clone()),
            "role" => return Some("none".to_owned()),
            _ => {}
        }
        let Setting(name, default, ..) = find(&name)?;
        Some(self.values.get(name).cloned().unwrap_or_else(|| (*default).to_owned()))
    }

    /// Sets `name`; to what it was at first, without a value.
    ///
    /// Errors: there is no such setting; it cannot be changed, or not to this value.
    pub fn set(&mut self, name: &str, value: Option<&str>) -> Result<(), Failure> {
        let lower = name.to_lowercase();
        if matches!(lower.as_str(), "role" | "session_authorization") {
            return match value {
                None => Ok(()),
                Some(value) if value == self.user || matches!(value.to_lowercase().as_str(), "none" | "default") => {
                    Ok(())
                }
                Some(_) => Err(Failure::new(code::INSUFFICIENT_PRIVILEGE, "nobody can become another user here")),
            };
        }
        let Some(Setting(known, default, _, rule)) = find(&lower) else {
            return Err(Failure::new(
                code::UNDEFINED_OBJECT,
                format!("unrecognized configuration parameter \"{name}\""),
            ));
        };
        let Some(value) = value.filter(|value| !value.eq_ignore_ascii_case("default")) else {
            self.values.remove(known);
            return Ok(());
        };
        // Some clients put quotes round it where none belong.
        let value = value.trim_matches('\'');
        let value = match rule {
            Free => value.to_owned(),
            Time => span::milliseconds(value).ok_or_else(|| not_possible(known, value))?.to_string(),
            Zone => zone(value).ok_or_else(|| {
                not_possible(known, value).hint("write a name such as Europe/Berlin, or an offset such as +02:00")
            })?,
            OneOf(_) if value.eq_ignore_ascii_case(default) => (*default).to_owned(),
            OneOf(allowed) if std::ptr::eq(*allowed, ON_OFF) && allowed.contains(&value.to_lowercase().as_str()) => {
                if matches!(value.to_lowercase().as_str(), "on" | "true" | "yes" | "1") { "on" } else { "off" }
                    .to_owned()
            }
            OneOf(allowed) if allowed.contains(&value.to_lowercase().as_str()) => (*default).to_owned(),
            Fixed if value.eq_ignore_ascii_case(default) => (*default).to_owned(),
            OneOf(_) => {
                return Err(not_possible(known, value).hint(format!("it is {default} here, always")));
            }
            Fixed => {
                return Err(Failure::new(code::ACTIVE_TRANSACTION, format!("parameter \"{known}\" cannot be changed")));
            }
        };
        self.values.insert(known, value);
        Ok(())
    }

    /// Sets all to what they were at first.
    pub fn reset_all(&mut self) {
        self.values.clear();
    }

    /// All, with what they are about.
    pub fn list(&self) -> Vec<(&'static str, String, &'static str)> {
        SETTINGS.iter().map(|Setting(name, _, about, _)| (*name, self.get(name).unwrap_or_default(), *about)).collect()
    }

    /// How long a statement may take, if not for ever.
    pub fn statement_timeout(&self) -> Option<Duration> {
        self.time("statement_timeout")
    }

    /// How long a transaction may rest, if not for ever.
    pub fn idle_in_transaction_timeout(&self) -> Option<Duration> {
        self.time("idle_in_transaction_session_timeout")
    }

    fn time(&self, name: &str) -> Option<Duration> {
        let milliseconds = self.get(name)?.parse().ok()?;
        (milliseconds > 0).then(|| Duration::from_millis(milliseconds))
    }
}

/// A time zone as the engine knows it; none if there is none of this name. A plain number is hours to the east.
fn zone(text: &str) -> Option<String> {
    let text = text.trim();
    let is = |names: &[&str]| names.iter().any(|name| name.eq_ignore_ascii_case(text));
    if is(&[UTC, "Etc/UTC", "GMT", "Zulu", "Universal", "default", "local"]) {
        return Some(UTC.to_owned());
    }
    let name = match text.parse::<i32>() {
        Ok(hours) => format!("{}{:02}:00", if hours < 0 { '-' } else { '+' }, hours.abs()),
        Err(_) => text.to_owned(),
    };
    name.parse::<arrow::array::timezone::Tz>().ok().map(|_| name)
}

fn find(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|Setting(known, ..)| known.eq_ignore_ascii_case(name))
}

fn not_possible(name: &str, value: &str) -> Failure {
    Failure::new(code::INVALID_PARAMETER_VALUE, format!("invalid value for parameter \"{name}\": \"{value}\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_mean_what_they_say_or_are_refused() {
        let mut settings = SessionSettings::new("ann", true);
        settings.set("Statement_Timeout", Some("2s")).expect("set");
        assert_eq!(settings.statement_timeout(), Some(Duration::from_secs(2)));
        settings.set("statement_timeout", None).expect("reset");
        assert_eq!(settings.statement_timeout(), None);
        settings.set("TimeZone", Some("Etc/UTC")).expect("the same");
        assert_eq!(settings.get("timezone").as_deref(), Some("UTC"));
        for (value, expect) in
            [("Europe/Berlin", "Europe/Berlin"), ("-3", "-03:00"), ("+05:30", "+05:30"), ("utc", "UTC")]
        {
            settings.set("timezone", Some(value)).expect(value);
            assert_eq!(settings.get("timezone").as_deref(), Some(expect));
        }
        for (name, value) in [
            ("timezone", "Europe/Nowhere"),
            ("client_encoding", "latin1"),
            ("server_version", "9"),
            ("nothing", "1"),
            ("statement_timeout", "soon"),
            ("role", "bob"),
        ] {
            assert!(settings.set(name, Some(value)).is_err(), "{name}");
        }
        for name in REPORTED {
            assert!(settings.get(name).is_some(), "{name}");
        }
    }
}
