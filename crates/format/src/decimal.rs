//! Writing decimals: an origin has four of them, for every event.

/// The digits of each number below 100.
const PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[b'0'; 2]; 100];
    let mut number = 0;
    while number < 100 {
        pairs[number] = [b'0' + (number / 10) as u8, b'0' + (number % 10) as u8];
        number += 1;
    }
    pairs
};

/// Most digits of a `u64`.
const MAX_DIGITS: usize = 20;

/// Appends `value`, without leading zeros.
pub(crate) fn push(out: &mut String, mut value: u64) {
    let mut digits = [0; MAX_DIGITS];
    let mut at = MAX_DIGITS;
    while value >= 10 {
        at -= 2;
        digits[at..at + 2].copy_from_slice(&PAIRS[(value % 100) as usize]);
        value /= 100;
    }
    // What is left is one digit; none after an even number of them, unless there were none at all.
    if value > 0 || at == MAX_DIGITS {
        at -= 1;
        digits[at] = b'0' + value as u8;
    }
    out.push_str(std::str::from_utf8(&digits[at..]).unwrap_or_default());
}

/// Appends `value`, with its sign where it is negative.
pub(crate) fn push_signed(out: &mut String, value: i64) {
    if value < 0 {
        out.push('-');
    }
    push(out, value.unsigned_abs());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_what_the_standard_library_writes() {
        let mut numbers = vec![0, u64::MAX];
        let mut power = 1u64;
        while let Some(next) = power.checked_mul(10) {
            numbers.extend([power - 1, power, power + 1, power * 5]);
            power = next;
        }
        numbers.extend([power - 1, power, power + 1]);
        for number in numbers {
            let mut text = String::from("x");
            push(&mut text, number);
            assert_eq!(text, format!("x{number}"));
            for signed in [number as i64, (number as i64).wrapping_neg()] {
                let mut text = String::new();
                push_signed(&mut text, signed);
                assert_eq!(text, signed.to_string());
            }
        }
    }
}
