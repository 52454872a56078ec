//! Sizes as people write them.

use toml::de::DeValue;

use super::decode::{Context, Decode, Value};

/// A size in bytes; in TOML a string such as `"256 MiB"`, or a number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size(pub(crate) u64);

/// Bytes a second; in TOML as a [`Size`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate(pub(crate) u64);

/// As [`parse_size`], for a rate: whoever counts in bits is told how many bytes that is.
///
/// # Errors
/// A sentence.
fn parse_rate(text: &str) -> Result<u64, String> {
    parse_size(text).map_err(|_| {
        let digits_end = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
        let (digits, unit) = text.split_at(digits_end);
        let unit = unit.trim().to_lowercase();
        let unit = unit.trim_end_matches("/s").trim_end_matches("ps").trim_end_matches("its").trim_end_matches("it");
        let factor = match unit {
            "kb" => Some(1_000),
            "mb" => Some(1_000_000),
            "gb" => Some(1_000_000_000_u64),
            _ => None,
        };
        let bits = digits.parse::<u64>().ok().zip(factor).and_then(|(number, factor)| number.checked_mul(factor));
        let advice = match bits {
            Some(bits) => format!("write {}, without quotes, for so many bits", bits / 8),
            None => "write a whole number of them, of KiB, MiB or GiB, such as \"1 MiB\"".to_string(),
        };
        format!("{text:?} is not a rate, which counts bytes a second; {advice}")
    })
}

/// Reads `256 MiB`, `256MiB`, `256M` or `268435456`; units are KiB, MiB and GiB.
///
/// # Errors
/// A sentence, if it is anything else or does not fit 64 bits.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is not a size; write a whole number of KiB, MiB or GiB, such as \"256 MiB\"");
    let digits_end = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(digits_end);
    let shift = match unit.trim() {
        "" => 0,
        "K" | "KiB" => 10,
        "M" | "MiB" => 20,
        "G" | "GiB" => 30,
        _ => return Err(wrong()),
    };
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    number.checked_mul(1 << shift).ok_or_else(wrong)
}

/// Writes a size in the largest unit that keeps it whole.
pub(crate) fn show_size(bytes: u64) -> String {
    for (shift, unit) in [(30, "GiB"), (20, "MiB"), (10, "KiB")] {
        if bytes != 0 && bytes.is_multiple_of(1 << shift) {
            return format!("{} {unit}", bytes >> shift);
        }
    }
    format!("{bytes} bytes")
}

/// Writes a size in KiB or MiB, rounded up: for files, whose sizes are rarely whole.
pub(crate) fn show_size_rounded(bytes: u64) -> String {
    match bytes {
        0..0x400 => format!("{bytes} bytes"),
        0x400..0x10_0000 => format!("{} KiB", bytes.div_ceil(1 << 10)),
        _ => format!("{} MiB", bytes.div_ceil(1 << 20)),
    }
}

impl Decode for Size {
    const EXPECTED: &'static str = "a size such as \"256 MiB\"";

    fn decode(value: Value<'_>, context: &Context<'_>) -> Option<Self> {
        read(&value, Self::EXPECTED, parse_size, context).map(Self)
    }
}

impl Decode for Rate {
    const EXPECTED: &'static str = "a number of bytes a second, such as \"1 MiB\"";

    fn decode(value: Value<'_>, context: &Context<'_>) -> Option<Self> {
        read(&value, Self::EXPECTED, parse_rate, context).map(Self)
    }
}

fn read(
    value: &Value<'_>,
    expected: &str,
    parse: impl Fn(&str) -> Result<u64, String>,
    context: &Context<'_>,
) -> Option<u64> {
    match value.get_ref() {
        DeValue::String(text) => parse(text).map_err(|sentence| context.refuse(value, &sentence)).ok(),
        DeValue::Integer(digits) if digits.as_str().starts_with('-') => {
            parse(digits.as_str()).map_err(|sentence| context.refuse(value, &sentence)).ok()
        }
        DeValue::Integer(_) => u64::decode(value.clone(), context),
        DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => {
            context.mismatch(value, expected, "write one of these");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_and_without_a_unit() {
        assert_eq!(parse_size("256 MiB"), Ok(256 << 20));
        assert_eq!(parse_size("256M"), Ok(256 << 20));
        assert_eq!(parse_size("2GiB"), Ok(2 << 30));
        assert_eq!(parse_size("64 K"), Ok(64 << 10));
        assert_eq!(parse_size("4096"), Ok(4096));
    }

    #[test]
    fn other_words_are_refused_in_a_sentence() {
        for text in ["", "MiB", "256 MB", "-1", "1.5 GiB", "99999999999999999999", "99999999999 GiB", "1 GiB x"] {
            let sentence = parse_size(text).unwrap_err();
            assert!(sentence.ends_with("such as \"256 MiB\""), "{sentence}");
        }
    }

    #[test]
    fn a_rate_in_bits_is_said_in_bytes() {
        assert_eq!(parse_rate("1 MiB"), Ok(1 << 20));
        for text in ["10 Mbit", "10mbit/s", "10 Mbps", "10Mb"] {
            assert!(
                parse_rate(text).unwrap_err().ends_with("; write 1250000, without quotes, for so many bits"),
                "{text}"
            );
        }
        assert!(parse_rate("fast").unwrap_err().ends_with("such as \"1 MiB\""));
    }

    #[test]
    fn a_size_is_written_in_the_unit_that_keeps_it_whole() {
        assert_eq!(show_size(1 << 30), "1 GiB");
        assert_eq!(show_size(1536 << 20), "1536 MiB");
        assert_eq!(show_size(4097), "4097 bytes");
        assert_eq!(show_size(0), "0 bytes");
    }
}
