//! The types of Postgres that the catalog lists, and their names.

use std::sync::LazyLock;

use postgres_types::{Kind, Type};

/// A row of `pg_type`, as Postgres 15 has it.
pub(super) struct TypeRow {
    pub oid: i64,
    pub name: &'static str,
    /// What stands between its number and name and its end, word by word.
    pub words: Vec<&'static str>,
}

/// The types.
pub(super) static TYPES: LazyLock<Vec<TypeRow>> = LazyLock::new(|| {
    let row = |line: &'static str| {
        let mut words = line.split(' ');
        let (oid, name) = (words.next()?.parse().ok()?, words.next()?);
        Some(TypeRow { oid, name, words: words.collect() })
    };
    include_str!("types.txt").lines().filter_map(row).collect()
});

/// The functions that read and write the values of types.
pub(super) fn io_functions() -> impl Iterator<Item = &'static str> {
    // They stand behind the length, four flags, the delimiter and the two numbers of related types.
    TYPES.iter().flat_map(|row| row.words.iter().skip(8).take(4).copied()).filter(|name| *name != "-")
}

/// The names that SQL has for types, besides those in the catalog.
const WORDS: &[(&str, &str)] = &[
    ("boolean", "bool"),
    ("bigint", "int8"),
    ("integer", "int4"),
    ("int", "int4"),
    ("smallint", "int2"),
    ("real", "float4"),
    ("float", "float8"),
    ("double precision", "float8"),
    ("double", "float8"),
    ("decimal", "numeric"),
    ("dec", "numeric"),
    ("character varying", "varchar"),
    ("character", "bpchar"),
    ("timestamp without time zone", "timestamp"),
    ("timestamp with time zone", "timestamptz"),
    ("time without time zone", "time"),
    ("time with time zone", "timetz"),
    ("string", "text"),
];

/// The type called `name`, perhaps with its namespace and with parentheses.
pub(super) fn named(name: &str) -> Option<Type> {
    // The internal type "char" is written in quotes; without them the word means another one.
    let quoted = name.contains("\"char\"");
    let lower = name.to_lowercase().replace('"', "");
    let plain = lower.strip_prefix("pg_catalog.").unwrap_or(&lower);
    let (base, array) = match plain.strip_suffix("[]") {
        Some(base) => (base, true),
        None => (plain, false),
    };
    let base = match (base.find('('), base.find(')')) {
        (Some(from), Some(to)) if from < to => format!("{}{}", base[..from].trim_end(), &base[to + 1..]),
        _ => base.to_owned(),
    };
    if base == "char" && !quoted && !lower.starts_with("pg_catalog.") {
        return Some(if array { Type::BPCHAR_ARRAY } else { Type::BPCHAR });
    }
    let canonical = WORDS.iter().find(|(word, _)| *word == base).map_or(base.as_str(), |(_, name)| name);
    let row = TYPES.iter().find(|row| row.name == canonical)?;
    let kind = Type::from_oid(u32::try_from(row.oid).ok()?)?;
    Some(if array { array_of(&kind) } else { kind })
}

/// The number of the type called `name`.
pub(super) fn oid_of(name: &str) -> Option<i64> {
    named(name).map(|kind| i64::from(kind.oid()))
}

/// The type of arrays of `element`.
pub(super) fn array_of(element: &Type) -> Type {
    let row = TYPES.iter().find(|row| row.oid == i64::from(element.oid()));
    let array = row.and_then(|row| row.words.get(7)).and_then(|oid| oid.parse().ok()).filter(|oid| *oid != 0);
    array.and_then(Type::from_oid).unwrap_or(Type::TEXT_ARRAY)
}

/// The type of the elements of `array`.
pub(super) fn element_of(array: &Type) -> Type {
    match array.kind() {
        Kind::Array(element) => element.clone(),
        _ => match *array {
            Type::INT2_VECTOR => Type::INT2,
            Type::OID_VECTOR => Type::OID,
            _ => array.clone(),
        },
    }
}

/// What SQL calls the type `oid` with the modifier `modifier`.
pub(super) fn format(oid: i64, modifier: Option<i64>) -> String {
    let Some(row) = TYPES.iter().find(|row| row.oid == oid) else {
        return if oid == 0 { "-".to_owned() } else { "???".to_owned() };
    };
    if let Some(element) = row.name.strip_prefix('_').and_then(|name| TYPES.iter().find(|row| row.name == name)) {
        return format(element.oid, modifier) + "[]";
    }
    let modifier = modifier.filter(|modifier| *modifier >= 0);
    let word = match row.name {
        "char" => "\"char\"",
        // The word that is used most.
        "float8" => "double precision",
        "timestamp" => "timestamp without time zone",
        "numeric" => "numeric",
        name => WORDS.iter().find(|(word, known)| *known == name && *word != "string").map_or(name, |(word, _)| word),
    };
    match (row.name, modifier) {
        ("numeric", Some(modifier)) if modifier >= 4 => {
            let modifier = modifier - 4;
            format!("numeric({},{})", modifier >> 16, modifier & 0xffff)
        }
        ("varchar" | "bpchar", Some(modifier)) if modifier >= 4 => format!("{word}({})", modifier - 4),
        _ => word.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_and_their_names() {
        for (name, kind) in [
            ("INT", Type::INT4),
            ("pg_catalog.regclass", Type::REGCLASS),
            ("pg_catalog.\"char\"", Type::CHAR),
            ("character varying(20)", Type::VARCHAR),
            ("oid[]", Type::OID_ARRAY),
            ("TIMESTAMP WITH TIME ZONE", Type::TIMESTAMPTZ),
        ] {
            assert_eq!(named(name), Some(kind), "{name}");
        }
        assert_eq!(named("nothing"), None);
        assert_eq!(format(1700, Some(((18 << 16) | 4) + 4)), "numeric(18,4)");
        assert_eq!(format(1016, None), "bigint[]");
        assert_eq!(format(1184, Some(-1)), "timestamp with time zone");
        assert_eq!(array_of(&Type::INT8), Type::INT8_ARRAY);
        assert!(TYPES.iter().all(|row| row.words.len() == 15));
    }
}
