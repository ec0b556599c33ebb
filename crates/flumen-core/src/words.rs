//! Numbers as people read them.

/// `1369765` as `1,369,765`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// So many of what one is called: `1 row`, `1,369,765 rows`.
pub fn counted(number: u64, one: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{} {one}s", count(number)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_people_do() {
        assert_eq!([0, 999, 1_000, 1_369_765].map(count), ["0", "999", "1,000", "1,369,765"]);
        assert_eq!([0, 1, 2_000].map(|number| counted(number, "row")), ["0 rows", "1 row", "2,000 rows"]);
    }
}
