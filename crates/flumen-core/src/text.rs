//! What text means: the one place where a piece of a CSV or JSON file becomes a number, a date or nothing.

/// How text is to be understood.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TextOptions {
    /// Values that mean null, besides the empty one.
    pub nulls: Vec<String>,
    /// Dates and timestamps in this `strftime` format, tried before ISO 8601.
    pub date_format: Option<String>,
    /// `1.234,56` rather than `1,234.56`.
    pub decimal_comma: bool,
    /// Whether white space round text is cut off. (Round numbers and dates it always is.)
    pub trim: bool,
}
