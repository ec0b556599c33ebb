//! Months of the calendar, without a date-time library: a month is a number, and so is a day.

use std::fmt;
use std::str::FromStr;

use flumen_core::{Error, Result};

/// The first year whose trip records have zones and the columns that this module knows.
const FIRST_YEAR: i64 = 2011;
const LAST_YEAR: i64 = 2099;
/// The most months that one command may ask for: all that there are.
const MONTHS: usize = ((LAST_YEAR - FIRST_YEAR + 1) * 12) as usize;

/// A month of the calendar, from 2011-01 to 2099-12.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Month(
    /// Months since year 0.
    i64,
);

impl Month {
    /// The month `month` (1 to 12) of `year`, for constants inside this module's parent.
    pub(super) const fn of(year: i64, month: i64) -> Self {
        Self(year * 12 + month - 1)
    }

    /// The year.
    pub fn year(self) -> i64 {
        self.0.div_euclid(12)
    }

    /// The month of the year, 1 to 12.
    pub fn number(self) -> i64 {
        self.0.rem_euclid(12) + 1
    }

    /// Days from 1970-01-01 to its first day.
    pub fn first_day(self) -> i64 {
        days_from_civil(self.year(), self.number(), 1)
    }

    /// How many days it has.
    pub fn days(self) -> i64 {
        Self(self.0 + 1).first_day() - self.first_day()
    }
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.year(), self.number())
    }
}

impl FromStr for Month {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = |why: String| Error::invalid(why).hint("write a month as 2019-01, a range as 2019-01..2019-06");
        let (year, month) = text
            .trim()
            .split_once('-')
            .filter(|(year, month)| year.len() == 4 && (1..=2).contains(&month.len()))
            .and_then(|(year, month)| Some((year.parse::<u16>().ok()?, month.parse::<u8>().ok()?)))
            .ok_or_else(|| wrong(format!("'{text}' is not a month")))?;
        if !(1..=12).contains(&month) {
            return Err(wrong(format!("'{text}' is not a month: a year has months 01 to 12")));
        }
        if !(FIRST_YEAR..=LAST_YEAR).contains(&i64::from(year)) {
            return Err(wrong(format!(
                "there are no sample trips for {text}: the years are {FIRST_YEAR} to {LAST_YEAR}"
            )));
        }
        Ok(Self::of(i64::from(year), i64::from(month)))
    }
}

/// Months as people list them: `2019-01`, `2019-01..2019-06` (the last one included), `2019-01,2020-01..2020-03`.
/// Each is given once, in order.
///
/// # Errors
/// [`flumen_core::ErrorKind::Invalid`] when a piece is no month, or a range runs backwards.
pub fn parse_months(text: &str) -> Result<Vec<Month>> {
    let mut months = Vec::new();
    for piece in text.split(',') {
        let (first, last) = match piece.split_once("..") {
            Some((first, last)) => (first.parse::<Month>()?, last.trim_start_matches('=').parse::<Month>()?),
            None => {
                let month = piece.parse::<Month>()?;
                (month, month)
            }
        };
        if last < first {
            return Err(Error::invalid(format!("the months {} run backwards", piece.trim()))
                .hint(format!("write {last}..{first}")));
        }
        months.extend((first.0..=last.0).map(Month));
    }
    months.sort_unstable();
    months.dedup();
    debug_assert!(months.len() <= MONTHS);
    Ok(months)
}

/// Days from 1970-01-01 to a date of the proleptic Gregorian calendar.
pub(super) const fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    // Years begin in March here, so that the leap day is a year's last.
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// The date (year, month, day) that is `days` days after 1970-01-01.
pub(super) const fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400;
    (if month <= 2 { year + 1 } else { year }, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_dates_agree_with_the_calendar() {
        let mut date = chrono::NaiveDate::from_ymd_opt(1999, 12, 30).unwrap();
        for _ in 0..40_000 {
            use chrono::Datelike;
            let days = i64::from(date.num_days_from_ce()) - 719_163;
            let civil = (i64::from(date.year()), i64::from(date.month()), i64::from(date.day()));
            assert_eq!(civil_from_days(days), civil);
            assert_eq!(days_from_civil(civil.0, civil.1, civil.2), days);
            date = date.succ_opt().unwrap();
        }
    }

    fn check(text: &str, expect: &str) {
        let got = match parse_months(text) {
            Ok(months) => months.iter().map(Month::to_string).collect::<Vec<_>>().join(" "),
            Err(error) => format!("{error} ({})", error.remedy().unwrap_or_default()),
        };
        assert_eq!(got, expect, "{text}");
    }

    #[test]
    fn months_are_read_as_people_write_them() {
        check("2019-01", "2019-01");
        check("2019-11..2020-02", "2019-11 2019-12 2020-01 2020-02");
        check("2020-01, 2019-01..2019-02,2019-02", "2019-01 2019-02 2020-01");
        let hint = "(write a month as 2019-01, a range as 2019-01..2019-06)";
        check("2019-13", &format!("'2019-13' is not a month: a year has months 01 to 12 {hint}"));
        check("2019-06..2019-01", "the months 2019-06..2019-01 run backwards (write 2019-01..2019-06)");
        check("soon", &format!("'soon' is not a month {hint}"));
        check("2009-01", &format!("there are no sample trips for 2009-01: the years are 2011 to 2099 {hint}"));
        check("", &format!("'' is not a month {hint}"));
    }

    #[test]
    fn months_know_their_days() {
        assert_eq!(Month::of(2020, 2).days(), 29);
        assert_eq!(Month::of(2019, 2).days(), 28);
        assert_eq!(Month::of(2019, 12).days(), 31);
    }
}
