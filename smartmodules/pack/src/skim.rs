//! The quick way to a member of a flat JSON object.
//!
//! Most events are objects that name their job and their time early, as strings without
//! escapes and as whole numbers. For them a general parser takes longer than packing the
//! event does. Whatever is not of that form is left to the parser: where an answer is
//! given here, it is the parser's.

use std::borrow::Cow;

use millpond_format::scan;

use crate::pointer::{Found, Pointer, TARGETS, Value};

/// Digits of which any number fits an `i64`.
const SAFE_DIGITS: usize = 18;

/// Looks up members of the outermost object; `None` leaves the question to the parser.
pub fn skim<'de>(json: &'de [u8], pointers: [Option<&Pointer>; TARGETS]) -> Option<Found<'de>> {
    let mut names = [None; TARGETS];
    let mut missing = 0;
    for (name, pointer) in names.iter_mut().zip(pointers) {
        if let Some(pointer) = pointer {
            *name = Some(pointer.only_token()?.as_bytes());
            missing += 1;
        }
    }
    let mut found: Found<'de> = [None, None];
    let mut reader = Reader { json, at: 0 };
    reader.expect(b'{')?;
    loop {
        let name = reader.string()?;
        reader.expect(b':')?;
        let value = reader.scalar()?;
        for (target, wanted) in names.iter().enumerate() {
            if *wanted == Some(name) && found[target].is_none() {
                found[target] = Some(value.as_found()?);
                missing -= 1;
            }
        }
        if missing == 0 {
            return Some(found);
        }
        reader.expect(b',')?;
    }
}

struct Reader<'de> {
    json: &'de [u8],
    at: usize,
}

/// A value that was read as far as needed to know where it ends.
enum Scalar<'de> {
    Text(&'de [u8]),
    Whole(&'de [u8]),
    Other,
}

impl<'de> Scalar<'de> {
    fn as_found(&self) -> Option<Value<'de>> {
        match *self {
            Self::Text(bytes) => {
                let text = std::str::from_utf8(bytes).ok()?;
                Some(Value::Text(Cow::Borrowed(text)))
            }
            Self::Whole(digits) if digits.len() <= SAFE_DIGITS => {
                let number = scan::decimal(digits)?.try_into().ok()?;
                Some(Value::Whole(number))
            }
            Self::Whole(_) | Self::Other => None,
        }
    }
}

impl<'de> Reader<'de> {
    /// The next byte that is not white space, without taking it.
    fn peek(&mut self) -> Option<u8> {
        loop {
            let byte = *self.json.get(self.at)?;
            if !matches!(byte, b' ' | b'\n' | b'\t' | b'\r') {
                return Some(byte);
            }
            self.at += 1;
        }
    }

    fn expect(&mut self, wanted: u8) -> Option<()> {
        (self.peek()? == wanted).then(|| self.at += 1)
    }

    /// A string of plain text, without its quotes.
    fn string(&mut self) -> Option<&'de [u8]> {
        self.expect(b'"')?;
        let rest = &self.json[self.at..];
        // Names are compared as bytes; one that is not ASCII is the parser's to check.
        let end = scan::json_special(rest)?;
        self.at += end + 1;
        (rest[end] == b'"').then_some(&rest[..end])
    }

    fn scalar(&mut self) -> Option<Scalar<'de>> {
        match self.peek()? {
            b'"' => self.string().map(Scalar::Text),
            b'0'..=b'9' => self.number(),
            b't' => self.literal(b"true"),
            b'f' => self.literal(b"false"),
            b'n' => self.literal(b"null"),
            _ => None,
        }
    }

    fn literal(&mut self, text: &[u8]) -> Option<Scalar<'de>> {
        self.json[self.at..].starts_with(text).then(|| {
            self.at += text.len();
            Scalar::Other
        })
    }

    /// A number without sign and exponent; the byte that follows it must end a value.
    fn number(&mut self) -> Option<Scalar<'de>> {
        let whole = self.digits();
        if whole.len() > 1 && whole[0] == b'0' {
            return None;
        }
        let mut scalar = Scalar::Whole(whole);
        if self.json.get(self.at) == Some(&b'.') {
            self.at += 1;
            scalar = Scalar::Other;
            if self.digits().is_empty() {
                return None;
            }
        }
        matches!(
            self.json.get(self.at)?,
            b',' | b'}' | b' ' | b'\n' | b'\t' | b'\r'
        )
        .then_some(scalar)
    }

    fn digits(&mut self) -> &'de [u8] {
        let digits = scan::leading_digits(&self.json[self.at..]);
        self.at += digits.len();
        digits
    }
}
