//! Attributes as a scan gives them: values of the keys that are read, by key, in whichever form the sender
//! wrote them.

use crate::event::Attr;
use strum::EnumCount;

/// The value of an attribute, borrowed from the request's bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// A string.
    Str(&'a str),
    /// An integer.
    Int(i64),
    /// A boolean.
    Bool(bool),
    /// A floating-point number.
    Double(f64),
    /// An array, key-value list, byte string or nothing: the encoded `KeyValue` that holds it, key included.
    ///
    /// (The value alone need not be one piece: protobuf merges a message field that occurs twice.)
    Other(&'a [u8]),
}

/// The values of the attributes that are read, by [`Attr`]. Of a key that occurs several times, the last
/// value counts.
#[derive(Clone, Debug, PartialEq)]
pub struct Attrs<'a> {
    slots: [Option<Value<'a>>; Attr::COUNT],
}

impl Default for Attrs<'_> {
    fn default() -> Self {
        Self {
            slots: [None; Attr::COUNT],
        }
    }
}

impl<'a> Attrs<'a> {
    /// Sets the value of an attribute.
    #[inline]
    pub const fn set(&mut self, attr: Attr, value: Value<'a>) {
        self.slots[attr as usize] = Some(value);
    }

    /// The value of an attribute in the form in which it came.
    #[inline]
    #[must_use]
    pub const fn get(&self, attr: Attr) -> Option<Value<'a>> {
        self.slots[attr as usize]
    }

    /// The value of an attribute that is a string.
    #[inline]
    #[must_use]
    pub const fn text(&self, attr: Attr) -> Option<&'a str> {
        match self.get(attr) {
            Some(Value::Str(text)) => Some(text),
            _ => None,
        }
    }

    /// The value of an attribute as an integer, whether it came as one or as a decimal string, since Codex
    /// mixes both.
    #[must_use]
    pub fn int(&self, attr: Attr) -> Option<i64> {
        match self.get(attr)? {
            Value::Int(int) => Some(int),
            Value::Str(text) => text.trim().parse().ok(),
            Value::Double(double) if double.fract() == 0.0 && double.abs() < 9e15 => Some(double as i64),
            Value::Double(_) | Value::Bool(_) | Value::Other(_) => None,
        }
    }

    /// The value of an attribute as a count: an integer that is not negative.
    #[must_use]
    pub fn count(&self, attr: Attr) -> Option<u64> {
        u64::try_from(self.int(attr)?).ok()
    }

    /// The value of an attribute in milliseconds as whole microseconds, whether it came as an integer, a
    /// decimal string or a number with a fraction.
    ///
    /// Codex sends whole milliseconds as strings. What is finer than a microsecond is cut off.
    #[must_use]
    pub fn micros(&self, attr: Attr) -> Option<u64> {
        match self.get(attr)? {
            Value::Str(text) => scaled(text, 3),
            Value::Double(double) if (0.0..9e12).contains(&double) => {
                format!("{:.0}", (double * 1_000.0).floor()).parse().ok()
            }
            Value::Int(_) | Value::Double(_) => self.count(attr).map(|ms| ms.saturating_mul(1_000)),
            Value::Bool(_) | Value::Other(_) => None,
        }
    }

    /// The value of an attribute as whole billionths, whether it came as an integer, a decimal string or a
    /// number with a fraction.
    ///
    /// Codex sends money as decimal strings. What is finer than a billionth is cut off.
    #[must_use]
    pub fn billionths(&self, attr: Attr) -> Option<u64> {
        match self.get(attr)? {
            Value::Str(text) if text.contains(['e', 'E']) => {
                scaled(&text.trim().parse::<f64>().ok()?.to_string(), 9)
            }
            Value::Str(text) => scaled(text, 9),
            // Display gives the shortest decimal of a double, never in scientific form.
            Value::Double(double) => scaled(&double.to_string(), 9),
            Value::Int(_) => self.count(attr).map(|whole| whole.saturating_mul(1_000_000_000)),
            Value::Bool(_) | Value::Other(_) => None,
        }
    }

    /// The value of an attribute as a boolean, whether it came as one or as `"true"` or `"false"`.
    #[must_use]
    pub fn flag(&self, attr: Attr) -> Option<bool> {
        match self.get(attr)? {
            Value::Bool(flag) => Some(flag),
            Value::Str(text) => text.parse().ok(),
            Value::Int(_) | Value::Double(_) | Value::Other(_) => None,
        }
    }
}

/// A decimal times ten to the power of `digits`, cut off to an integer; `None` for a text that is no decimal,
/// or a negative one.
fn scaled(text: &str, digits: u32) -> Option<u64> {
    let (whole, fraction) = text.trim().split_once('.').unwrap_or((text.trim(), ""));
    let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !plain(whole) || !plain(fraction) {
        return None;
    }
    let rest = fraction
        .bytes()
        .chain(std::iter::repeat(b'0'))
        .take(digits as usize);
    let rest = rest.fold(0, |rest: u64, digit| rest * 10 + u64::from(digit - b'0'));
    Some(
        whole
            .parse::<u64>()
            .ok()?
            .saturating_mul(10_u64.pow(digits))
            .saturating_add(rest),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_in_every_form() {
        let micros = |value| {
            let mut attrs = Attrs::default();
            attrs.set(Attr::DurationMs, value);
            attrs.micros(Attr::DurationMs)
        };
        assert_eq!(micros(Value::Str("120")), Some(120_000));
        assert_eq!(micros(Value::Str("1.5")), Some(1_500));
        assert_eq!(micros(Value::Str("0.00099")), Some(0));
        assert_eq!(micros(Value::Int(7)), Some(7_000));
        assert_eq!(micros(Value::Double(2.25)), Some(2_250));
        for nonsense in [
            Value::Str("-1"),
            Value::Str("1e3"),
            Value::Str("."),
            Value::Str(""),
            Value::Double(f64::NAN),
            Value::Int(-1),
        ] {
            assert_eq!(micros(nonsense), None, "{nonsense:?}");
        }
    }
}
