//! Amounts as Kubernetes writes them: `64Mi`, `500m`, `1e6`, or a bare number.

use serde_json::Value;

/// What an amount has to be, in the API server's words.
pub(crate) const RULE: &str =
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";

/// The longest first: `Ki` ends with the `i` of no other, but `E` also begins an exponent.
const UNITS: [(&str, f64); 16] = [
    ("Ki", 1024.),
    ("Mi", 1_048_576.),
    ("Gi", 1_073_741_824.),
    ("Ti", 1_099_511_627_776.),
    ("Pi", 1_125_899_906_842_624.),
    ("Ei", 1_152_921_504_606_846_976.),
    ("n", 1e-9),
    ("u", 1e-6),
    ("m", 1e-3),
    ("k", 1e3),
    ("M", 1e6),
    ("G", 1e9),
    ("T", 1e12),
    ("P", 1e15),
    ("E", 1e18),
    ("", 1.),
];

/// The amount, if it is one.
pub(crate) fn parse(quantity: &Value) -> Option<f64> {
    let Some(text) = quantity.as_str() else { return quantity.as_f64() };
    let (number, unit) = UNITS.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, factor)))?;
    // Rust reads `inf` and `nan` as numbers too.
    let is_numeric = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E' | b'+' | b'-');
    let number: f64 = number.bytes().all(is_numeric).then(|| number.parse().ok())??;
    Some(number * unit).filter(|amount| amount.is_finite())
}

/// A size in whole bytes, begun ones included.
pub fn bytes(quantity: &Value) -> Option<u64> {
    let amount = parse(quantity).filter(|amount| *amount >= 0.)?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is positive, and saturates")]
    Some(amount.ceil() as u64)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn sizes_are_bytes() {
        for (quantity, size) in [
            (json!("64Mi"), Some(64 << 20)),
            (json!("1k"), Some(1000)),
            (json!("1.5Gi"), Some(3 << 29)),
            (json!("12"), Some(12)),
            (json!(12), Some(12)),
            (json!("2e3"), Some(2000)),
            (json!("1E"), Some(1_000_000_000_000_000_000)),
            (json!("1500m"), Some(2)),
            (json!("-1"), None),
            (json!("64MB"), None),
            (json!("inf"), None),
            (json!("nan"), None),
            (json!(""), None),
            (json!("Mi"), None),
            (json!(true), None),
        ] {
            assert_eq!(bytes(&quantity), size, "{quantity}");
        }
    }
}
