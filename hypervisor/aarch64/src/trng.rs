//! TRNG (DEN0098): random numbers for a guest's firmware calls. The randomness itself is an argument.

use crate::psci::INVALID_PARAMETERS;
use crate::smccc::{NOT_SUPPORTED, SUCCESS};

mod function {
    pub(super) const VERSION: u32 = 0x8400_0050;
    pub(super) const FEATURES: u32 = 0x8400_0051;
    pub(super) const GET_UUID: u32 = 0x8400_0052;
    pub(super) const RND: u32 = 0x8400_0053;
    pub(super) const RND_64: u32 = 0xc400_0053;
}

/// A call of TRNG.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// TRNG_VERSION: [`TRNG_VERSION`].
    Version,
    /// TRNG_FEATURES: [`features`].
    Features {
        /// The function asked about.
        function: u32,
    },
    /// TRNG_GET_UUID: [`TRNG_UUID`].
    Uuid,
    /// TRNG_RND: [`random_words`].
    Random {
        /// How many bits of entropy.
        bits: u64,
        /// The call is TRNG_RND64: a register carries 64 bits rather than 32.
        wide: bool,
    },
    /// Any other function: NOT_SUPPORTED.
    Unknown,
}

/// Names the call that a guest made with `function` in `w0` and `argument` in `x1`, of which an SMC32 function has the
/// lower 32 bits.
#[must_use]
pub const fn decode(function: u32, argument: u64) -> Call {
    match function {
        function::VERSION => Call::Version,
        function::FEATURES => Call::Features { function: argument as u32 },
        function::GET_UUID => Call::Uuid,
        function::RND => Call::Random { bits: argument & 0xffff_ffff, wide: false },
        function::RND_64 => Call::Random { bits: argument, wide: true },
        _ => Call::Unknown,
    }
}

/// What TRNG_FEATURES returns for `function`.
#[must_use]
pub const fn features(function: u32) -> u64 {
    match decode(function, 0) {
        Call::Version | Call::Features { .. } | Call::Uuid | Call::Random { .. } => SUCCESS,
        Call::Unknown => NOT_SUPPORTED,
    }
}

/// TRNG 1.0.
pub const TRNG_VERSION: u64 = 0x1_0000;

/// TRNG_RND's own -3: no entropy is available now; the guest may try again.
pub const NO_ENTROPY: u64 = u64::MAX - 2;

/// The UUID of Bulkhead's entropy source, 3306cc58-33aa-4203-b0ca-a4f5cc457d65, as `w0..=w3` carry it.
pub const TRNG_UUID: [u32; 4] = [0x58cc_0633, 0x0342_aa33, 0xf5a4_cab0, 0x657d_45cc];

// A first word of all ones would read as "not supported".
const _: () = assert!(TRNG_UUID[0] != u32::MAX, "the first word of the UUID is not NOT_SUPPORTED");

/// Lays out `bits` bits of `entropy` as TRNG_RND returns them in `x1..=x3`.
///
/// Bits N-1:0 of the registers read together, `x3` lowest, are entropy, the rest is zero. A register carries 64 bits if
/// the call is `wide` and 32 otherwise, so that a call gives at most 192 or 96 bits.
///
/// # Errors
/// [`INVALID_PARAMETERS`] for no bits, or more than the call can carry.
pub fn random_words(bits: u64, wide: bool, entropy: [u64; 3]) -> Result<[u64; 3], u64> {
    let width: u64 = if wide { 64 } else { 32 };
    if bits == 0 || bits > width.saturating_mul(3) {
        return Err(INVALID_PARAMETERS);
    }
    let [high, middle, low] = entropy;
    let word = |value: u64, words_below: u64| {
        let wanted = bits.saturating_sub(width.saturating_mul(words_below)).min(width);
        // A shift by 64 or more leaves nothing, which is right for no bits wanted.
        value & u64::MAX.checked_shr(64_u64.saturating_sub(wanted) as u32).unwrap_or(0)
    };
    Ok([word(high, 2), word(middle, 1), word(low, 0)])
}

#[cfg(test)]
mod tests {
    use super::{Call, INVALID_PARAMETERS, NOT_SUPPORTED, SUCCESS, decode, features, random_words};

    const ONES: [u64; 3] = [u64::MAX; 3];

    #[test]
    fn entropy_fills_the_last_register_first() {
        assert_eq!(random_words(1, true, ONES), Ok([0, 0, 1]));
        assert_eq!(random_words(64, true, ONES), Ok([0, 0, u64::MAX]));
        assert_eq!(random_words(65, true, ONES), Ok([0, 1, u64::MAX]));
        assert_eq!(random_words(192, true, ONES), Ok(ONES));
    }

    #[test]
    fn narrow_call_uses_the_lower_halves_only() {
        let half = 0xffff_ffff;
        assert_eq!(random_words(32, false, ONES), Ok([0, 0, half]));
        assert_eq!(random_words(33, false, ONES), Ok([0, 1, half]));
        assert_eq!(random_words(96, false, ONES), Ok([half, half, half]));
    }

    #[test]
    fn no_bits_and_too_many_bits_are_refused() {
        for (bits, wide) in [(0, true), (0, false), (193, true), (97, false), (u64::MAX, true), (u64::MAX, false)] {
            assert_eq!(random_words(bits, wide, ONES), Err(INVALID_PARAMETERS), "{bits}");
        }
    }

    #[test]
    fn each_function_of_the_specification_is_known_by_its_number() {
        let dirty = 0xdead_beef_0000_0000;
        for (function, call) in [
            (0x8400_0050, Call::Version),
            (0x8400_0051, Call::Features { function: 7 }),
            (0x8400_0052, Call::Uuid),
            (0x8400_0053, Call::Random { bits: 7, wide: false }),
            (0xc400_0053, Call::Random { bits: dirty | 7, wide: true }),
        ] {
            assert_eq!(decode(function, dirty | 7), call, "{function:#x}");
            assert_eq!(features(function), SUCCESS, "{function:#x}");
        }
        for function in [0x8400_0054, 0xc400_0050, 0x8400_0000, 0, u32::MAX] {
            assert_eq!(decode(function, 7), Call::Unknown, "{function:#x}");
            assert_eq!(features(function), NOT_SUPPORTED, "{function:#x}");
        }
    }
}
