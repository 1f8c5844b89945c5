//! Signals by name, as a command line says them and as a table shows them.

/// Names of the signals 1 to 31 on x86_64 and aarch64 (signal(7)), without `SIG`.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM",
    "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO",
    "PWR", "SYS",
];

/// The greatest signal number.
pub const MAX: u32 = 64;

/// A signal that can ask a program to save itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signal(u32);

impl Signal {
    /// Its number, 1 to [`MAX`].
    pub fn number(self) -> u32 {
        self.0
    }
}

impl std::str::FromStr for Signal {
    type Err = String;

    /// Reads `USR1`, `SIGUSR1`, `usr1` or `10`.
    fn from_str(text: &str) -> Result<Self, String> {
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        let by_name = || NAMES.iter().zip(1..).find(|(known, _)| **known == name).map(|(_, n)| n);
        let number = text.parse().ok().or_else(by_name).filter(|n| (1..=MAX).contains(n));
        match number {
            None => Err("no such signal: give a name (USR1) or a number from 1 to 64".to_owned()),
            Some(9 | 19) => Err("KILL and STOP cannot be caught: choose another signal".to_owned()),
            Some(15) => Err("TERM already means save and end: choose another signal".to_owned()),
            Some(32 | 33) => Err("the C library keeps 32 and 33 for itself: choose another signal".to_owned()),
            Some(n) => Ok(Self(n)),
        }
    }
}

/// The name of a signal; a number where there is none.
pub fn name(number: u32) -> String {
    let index = number.checked_sub(1).and_then(|n| usize::try_from(n).ok());
    index.and_then(|i| NAMES.get(i)).map_or_else(|| number.to_string(), |name| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        for text in ["USR1", "SIGUSR1", "usr1", "10"] {
            assert_eq!(text.parse(), Ok(Signal(10)), "{text}");
        }
        for text in ["KILL", "0", "65", "-1", "SIGTERM", "FOO", "", "33"] {
            assert!(text.parse::<Signal>().is_err(), "{text}");
        }
        assert_eq!(name(10), "USR1");
        assert_eq!(name(40), "40");
    }
}
