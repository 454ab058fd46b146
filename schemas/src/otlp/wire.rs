//! Protobuf from borrowed bytes, field by field.
//!
//! **Invariant:** exactly those messages are refused that prost refuses.
//!
//! Source: protobuf "Encoding" guide; prost 0.14 `encoding.rs` (recursion limit, varint overflow, groups).

use super::scan::ScanError;

/// How many levels messages may be nested below the request, which is prost's limit.
pub const DEPTH_MAX: u32 = 100;

/// The content of a field, by wire type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload<'a> {
    /// Wire type 0.
    Varint(u64),
    /// Wire type 1.
    Fixed64(u64),
    /// Wire type 2: a string, bytes, a message or packed numbers.
    Bytes(&'a [u8]),
    /// Wire types 3 and 4: a group, which was skipped. No field that is read is a group.
    Group,
    /// Wire type 5; the value is not kept, since no field of this type is read.
    Fixed32,
}

impl<'a> Payload<'a> {
    /// The integer of a varint field.
    pub const fn varint(self) -> Result<u64, ScanError> {
        match self {
            Self::Varint(value) => Ok(value),
            Self::Fixed64(_) | Self::Bytes(_) | Self::Group | Self::Fixed32 => Err(ScanError::WireType),
        }
    }

    /// The eight bytes of a fixed64 or double field, as an integer.
    pub const fn fixed64(self) -> Result<u64, ScanError> {
        match self {
            Self::Fixed64(value) => Ok(value),
            Self::Varint(_) | Self::Bytes(_) | Self::Group | Self::Fixed32 => Err(ScanError::WireType),
        }
    }

    /// Checks the wire type of a fixed32 field.
    pub const fn fixed32(self) -> Result<(), ScanError> {
        match self {
            Self::Fixed32 => Ok(()),
            Self::Varint(_) | Self::Fixed64(_) | Self::Bytes(_) | Self::Group => Err(ScanError::WireType),
        }
    }

    /// The bytes of a length-delimited field.
    pub const fn bytes(self) -> Result<&'a [u8], ScanError> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            Self::Varint(_) | Self::Fixed64(_) | Self::Group | Self::Fixed32 => Err(ScanError::WireType),
        }
    }

    /// The text of a string field.
    pub fn text(self) -> Result<&'a str, ScanError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| ScanError::Utf8)
    }
}

/// The fields of one message, in the order of its bytes.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a> {
    rest: &'a [u8],
    /// How many further levels of messages may be entered.
    depth: u32,
    /// The fault of the field after the last good one.
    error: Option<ScanError>,
}

impl<'a> Fields<'a> {
    /// The fields of the outermost message.
    pub const fn new(message: &'a [u8]) -> Self {
        Self {
            rest: message,
            depth: DEPTH_MAX,
            error: None,
        }
    }

    /// The next field's number and payload; `None` at the end of the message or at a fault, which
    /// [`Fields::end`] tells apart.
    ///
    /// It is not a `Result`, so that the usual field stays in registers. A `Result` would be written to
    /// memory and read back with another width, which stalls the processor: that took a third of a scan's
    /// time.
    #[inline(always)]
    pub fn good(&mut self) -> Option<(u32, Payload<'a>)> {
        if let [key @ 8..0x80, length @ 0..0x80, rest @ ..] = self.rest
            && key & 7 == 2
            && let Some((bytes, rest)) = rest.split_at_checked(usize::from(*length))
        {
            self.rest = rest;
            return Some((u32::from(key >> 3), Payload::Bytes(bytes)));
        }
        self.any()
    }

    /// Gives the fault that ended the fields, if one did.
    pub const fn end(&self) -> Result<(), ScanError> {
        match self.error {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// The next field in any valid form.
    #[inline(never)]
    fn any(&mut self) -> Option<(u32, Payload<'a>)> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self
            .key()
            .and_then(|(number, wire_type)| Ok((number, self.payload(number, wire_type)?)));
        field
            .map_err(|error| (self.rest, self.error) = (&[], Some(error)))
            .ok()
    }

    /// The fields of the message that `payload` holds.
    #[inline]
    pub fn enter(&self, payload: Payload<'a>) -> Result<Self, ScanError> {
        let rest = payload.bytes()?;
        if self.depth == 0 {
            return Err(ScanError::TooDeep);
        }
        Ok(Self {
            rest,
            depth: self.depth - 1,
            error: None,
        })
    }

    /// Whether messages `levels` further down may be entered.
    #[inline]
    pub const fn reaches(&self, levels: u32) -> bool {
        self.depth >= levels
    }

    /// Skips an unknown field, which prost counts as a level of nesting.
    #[inline]
    pub const fn unknown(&self) -> Result<(), ScanError> {
        if self.depth == 0 {
            Err(ScanError::TooDeep)
        } else {
            Ok(())
        }
    }

    fn key(&mut self) -> Result<(u32, u8), ScanError> {
        let key = u32::try_from(self.varint()?).map_err(|_| ScanError::Malformed)?;
        let number = key >> 3;
        if number == 0 {
            return Err(ScanError::Malformed);
        }
        Ok((number, (key & 7) as u8))
    }

    #[inline]
    fn payload(&mut self, number: u32, wire_type: u8) -> Result<Payload<'a>, ScanError> {
        match wire_type {
            0 => Ok(Payload::Varint(self.varint()?)),
            1 => Ok(Payload::Fixed64(u64::from_le_bytes(self.array()?))),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| ScanError::Truncated)?;
                let (bytes, rest) = self.rest.split_at_checked(length).ok_or(ScanError::Truncated)?;
                self.rest = rest;
                Ok(Payload::Bytes(bytes))
            }
            3 => self.group(number, self.depth).map(|()| Payload::Group),
            5 => self.array::<4>().map(|_| Payload::Fixed32),
            // Wire type 4 ends a group that was not begun; 6 and 7 do not exist.
            _ => Err(ScanError::Malformed),
        }
    }

    /// Skips the rest of a group with the groups in it, which may be nested `depth` levels deep.
    fn group(&mut self, number: u32, depth: u32) -> Result<(), ScanError> {
        if depth == 0 {
            return Err(ScanError::TooDeep);
        }
        loop {
            match self.key()? {
                (end, 4) => {
                    return if end == number {
                        Ok(())
                    } else {
                        Err(ScanError::Malformed)
                    };
                }
                (inner, 3) => self.group(inner, depth - 1)?,
                // A field is one level below its group.
                _ if depth == 1 => return Err(ScanError::TooDeep),
                (inner, wire_type) => {
                    self.payload(inner, wire_type)?;
                }
            }
        }
    }

    #[inline]
    fn varint(&mut self) -> Result<u64, ScanError> {
        match self.rest {
            [byte, rest @ ..] if *byte < 0x80 => {
                self.rest = rest;
                Ok(u64::from(*byte))
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Result<u64, ScanError> {
        let mut value = 0;
        for (index, &byte) in self.rest.iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f) << (index * 7);
            if byte < 0x80 {
                // The tenth byte holds one bit of the 64.
                if index == 9 && byte > 1 {
                    return Err(ScanError::Malformed);
                }
                self.rest = &self.rest[index + 1..];
                return Ok(value);
            }
        }
        Err(if self.rest.len() < 10 {
            ScanError::Truncated
        } else {
            ScanError::Malformed
        })
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], ScanError> {
        let (array, rest) = self.rest.split_first_chunk::<N>().ok_or(ScanError::Truncated)?;
        self.rest = rest;
        Ok(*array)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_like_prost() {
        let check = |bytes: &[u8]| {
            let read = Fields::new(bytes).varint();
            let by_prost = prost::encoding::decode_varint(&mut &bytes[..]);
            assert_eq!(read.ok(), by_prost.ok(), "{bytes:x?}");
        };
        check(&[]);
        check(&[0x80]);
        for last in [0, 1, 2, 0x7f, 0x80] {
            for length in 1..=10 {
                let mut bytes = vec![0xff; length];
                bytes.push(last);
                check(&bytes);
            }
        }
    }
}
