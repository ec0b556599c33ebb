//! Contract files: YAML to [`Contract`].

use flumen_core::contract::Contract;
use flumen_core::{Error, Result};

/// Reads a contract from `text`, the content of `file`.
///
/// Errors: `Invalid`, with line and column of the first mistake, or with all contradictions.
pub fn parse(file: &str, text: &str) -> Result<Contract> {
    let contract: Contract = serde_saphyr::from_str(text).map_err(|error| {
        let error = error.without_snippet();
        let place = match error.location() {
            Some(location) => format!("{file}, line {}, column {}", location.line(), location.column()),
            None => file.to_owned(),
        };
        let message = error.to_string();
        Error::invalid(format!("{place}: {}", message.lines().next().unwrap_or("this is not a contract")))
            .hint("docs/contracts.md says what a contract can hold")
    })?;
    let wrong = contract.check();
    if wrong.is_empty() {
        return Ok(contract);
    }
    Err(Error::invalid(format!("{file}: {}", wrong.join("; "))).hint("mend the contract"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_contract_reads_as_people_write_it() {
        let text = "
name: yellow
new_columns: freeze
columns:
  - { name: vendor, type: integer, codes: { CMT: 1, NA: null } }
  - name: base
    coalesce: [a, b]
    nullable: false
";
        let contract = parse("yellow.yml", text).unwrap();
        assert_eq!(contract.columns.len(), 2);
        assert_eq!(contract.columns[0].codes.len(), 2);
        assert!(!contract.columns[1].nullable);
    }

    #[test]
    fn mistakes_have_a_place() {
        let error = parse("c.yml", "columns:\n  - name: a\n    typ: text\n").unwrap_err();
        assert!(error.message().starts_with("c.yml, line 3, column 5: "), "{error}");
        let error = parse("c.yml", "columns:\n  - { name: a, type: txet }\n").unwrap_err();
        assert!(error.message().contains("'txet' is not a type"), "{error}");
    }
}
