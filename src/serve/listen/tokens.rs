//! Who may come in: a file of lines, each with the hash of a token and what that token allows.
//!
//! `NAME ROLE DIRECTORY QUOTA sha256:HASH`, with white space between; `-` is no quota, `.` the whole directory that is served, and
//! what begins with `#` is not read.
//!
//! # Invariants
//! A directory of one line is never inside that of another one: who sees one, sees nothing of the other. No token and no name
//! stands there twice. The file holds nothing that lets anybody in.

use std::fmt;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use zeroize::Zeroizing;

use crate::random::{Random, RandomError, random_array};
use crate::store::Key;
use crate::store::door::wire::Role;
use crate::units::ByteSize;

/// What every token begins with, so that one that lies about is known for what it is.
const MARK: &str = "lbt_";
const SCHEME: &str = "sha256:";
/// Longest name of a token.
const NAME_MAX: usize = 64;
/// Most lines; more would make the look for one slow.
const LINES_MAX: usize = 10_000;

/// The hash of a token.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    /// Of what a client shows.
    pub fn of(token: &[u8]) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, token).as_ref());
        Self(hash)
    }

    fn parse(text: &str) -> Option<Self> {
        let text = text.strip_prefix(SCHEME)?;
        let digit = |at: usize| char::from(*text.as_bytes().get(at)?).to_digit(16);
        let mut hash = [0; 32];
        for (at, byte) in hash.iter_mut().enumerate() {
            *byte = u8::try_from(digit(2 * at)? << 4 | digit(2 * at + 1)?).ok()?;
        }
        (text.len() == 64).then_some(Self(hash))
    }
}

impl fmt::Display for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(SCHEME)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash(…)")
    }
}

/// What a token allows: a line of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// What it is called in the log.
    pub name: String,
    /// What its holder may do.
    pub role: Role,
    /// The directory of its repository, below the one that is served; `None` for that one itself.
    pub directory: Option<Key>,
    /// Most bytes that may lie in its directory.
    pub quota: Option<ByteSize>,
    hash: TokenHash,
}

/// Why a text is no line of the file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GrantError {
    /// Too few words, or too many.
    #[error("a line is NAME ROLE DIRECTORY QUOTA sha256:HASH")]
    Words,
    /// A name is for logs.
    #[error("a name has 1 to 64 letters, digits and `-._`")]
    Name,
    /// No such role.
    #[error("a role is writer, reader, maintainer, verifier or admin")]
    Role,
    /// Not a directory below the one that is served.
    #[error("a directory is `.` or a path below the one that is served, of letters, digits and `-._=+@,`")]
    Directory,
    /// Not a size.
    #[error("a quota is a size such as 500GiB, or `-`")]
    Quota,
    /// Not the hash of a token.
    #[error("a hash is sha256: and 64 hexadecimal digits")]
    Hash,
    /// Another line has this name.
    #[error("the name `{name}` is there already")]
    NameTwice {
        /// The name.
        name: String,
    },
    /// Another line has this hash.
    #[error("the token of `{name}` is there already")]
    HashTwice {
        /// The name of the other line.
        name: String,
    },
    /// One directory is inside the other.
    #[error("its directory and that of `{name}` are one inside the other")]
    Nested {
        /// The name of the other line.
        name: String,
    },
    /// More lines than are looked through.
    #[error("more than {LINES_MAX} tokens")]
    TooMany,
}

impl Grant {
    /// A new token, and the line for it. Whoever has the token is let in; it is nowhere else.
    pub fn make(
        (name, role): (&str, Role),
        directory: Option<Key>,
        quota: Option<ByteSize>,
        random: &dyn Random,
    ) -> Result<(Self, Zeroizing<String>), NewTokenError> {
        let secret = Zeroizing::new(random_array::<32>(random)?);
        let mut token = Zeroizing::new(String::with_capacity(MARK.len() + 64));
        token.push_str(MARK);
        for byte in secret.iter() {
            let digit = |value: u8| char::from_digit(u32::from(value), 16).unwrap_or('0');
            token.push(digit(byte >> 4));
            token.push(digit(byte & 15));
        }
        if !is_name(name) {
            return Err(GrantError::Name.into());
        }
        let hash = TokenHash::of(token.as_bytes());
        Ok((Self { name: name.to_owned(), role, directory, quota, hash }, token))
    }

    fn parse(line: &str) -> Result<Self, GrantError> {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let [name, role, directory, quota, hash] = words[..] else { return Err(GrantError::Words) };
        if !is_name(name) {
            return Err(GrantError::Name);
        }
        Ok(Self {
            name: name.to_owned(),
            role: Role::ALL.into_iter().find(|one| one.name() == role).ok_or(GrantError::Role)?,
            directory: match directory {
                "." => None,
                path => Some(Key::new(path).map_err(|_| GrantError::Directory)?),
            },
            quota: match quota {
                "-" => None,
                size => Some(size.parse().map_err(|_| GrantError::Quota)?),
            },
            hash: TokenHash::parse(hash).ok_or(GrantError::Hash)?,
        })
    }

    fn contains(&self, other: &Self) -> bool {
        match (&self.directory, &other.directory) {
            (None, inner) => inner.is_some(),
            (Some(outer), Some(inner)) => {
                inner.as_str().strip_prefix(outer.as_str()).is_some_and(|rest| rest.starts_with('/'))
            }
            (Some(_), None) => false,
        }
    }

    /// Whether both may stand in one file.
    fn goes_with(&self, other: &Self) -> Result<(), GrantError> {
        let name = || other.name.clone();
        if self.name == other.name {
            Err(GrantError::NameTwice { name: name() })
        } else if self.hash == other.hash {
            Err(GrantError::HashTwice { name: name() })
        } else if self.contains(other) || other.contains(self) {
            Err(GrantError::Nested { name: name() })
        } else {
            Ok(())
        }
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let directory = self.directory.as_ref().map_or(".", Key::as_str);
        let quota = self.quota.map_or_else(|| "-".to_owned(), |quota| quota.0.to_string());
        write!(f, "{} {} {directory} {quota} {}", self.name, self.role, self.hash)
    }
}

fn is_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    (1..=NAME_MAX).contains(&name.len()) && name.bytes().all(allowed)
}

/// Why there is no new token.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NewTokenError {
    /// It cannot be a line of the file.
    #[error(transparent)]
    Grant(#[from] GrantError),
    /// No random bytes.
    #[error(transparent)]
    Random(#[from] RandomError),
}

/// All tokens that are known.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tokens(Vec<Grant>);

impl Tokens {
    /// Reads the text of a file.
    ///
    /// # Errors
    /// The number of the first line that is wrong, from 1 on, and what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, (usize, GrantError)> {
        let mut tokens = Self::default();
        for (number, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or("").trim();
            if !line.is_empty() {
                let added = Grant::parse(line).and_then(|grant| tokens.add(grant));
                added.map_err(|error| (number + 1, error))?;
            }
        }
        Ok(tokens)
    }

    /// Adds a line.
    pub fn add(&mut self, grant: Grant) -> Result<(), GrantError> {
        if self.0.len() >= LINES_MAX {
            return Err(GrantError::TooMany);
        }
        self.0.iter().try_for_each(|other| grant.goes_with(other))?;
        self.0.push(grant);
        Ok(())
    }

    /// What this token allows. Takes as long for each: nothing is learnt from how long it takes.
    pub fn find(&self, token: &[u8]) -> Option<&Grant> {
        let hash = TokenHash::of(token);
        self.0.iter().fold(None, |found, grant| {
            let same = verify_slices_are_equal(&grant.hash.0, &hash.0).is_ok();
            if same { Some(grant) } else { found }
        })
    }

    /// Whether this very line is still there.
    pub fn has(&self, grant: &Grant) -> bool {
        self.0.contains(grant)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nobody is let in.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::random::SystemRandom;

    const HASH: &str = "sha256:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

    #[test]
    fn a_line_that_is_wrong_is_named_and_says_why() {
        let line = |line: &str| Tokens::parse(&format!("# who\n\n{line} {HASH}")).unwrap_err();
        for (text, wanted) in [
            ("web1", GrantError::Words),
            ("web1 writer web1 - -", GrantError::Words),
            ("we/b1 writer web1 -", GrantError::Name),
            ("web\u{1b}1 writer web1 -", GrantError::Name),
            ("web1 root web1 -", GrantError::Role),
            ("web1 writer ../x -", GrantError::Directory),
            ("web1 writer /srv -", GrantError::Directory),
            ("web1 writer tmp -", GrantError::Directory),
            ("web1 writer web1 lots", GrantError::Quota),
        ] {
            assert_eq!(line(text), (3, wanted), "{text}");
        }
        for hash in ["", "sha256:00", "md5:00", &HASH[..70], &format!("{HASH}0"), &HASH.replace('a', "g")] {
            let text = format!("web1 writer web1 - {hash}");
            assert!(Tokens::parse(&text).is_err(), "{hash}");
        }
    }

    #[test]
    fn no_two_lines_share_a_name_a_token_or_a_part_of_a_directory() {
        let other = HASH.replace("00", "01");
        let both =
            |a: &str, b: &str| Tokens::parse(&format!("a writer {a} - {HASH}\nb writer {b} - {other}"));
        assert!(both("x", "x").is_ok() && both("x", "xy").is_ok() && both(".", ".").is_ok());
        for (a, b) in [("x", "x/y"), ("x/y/z", "x"), (".", "x"), ("x", ".")] {
            let nested = GrantError::Nested { name: "a".to_owned() };
            assert_eq!(both(a, b).unwrap_err(), (2, nested), "{a} {b}");
        }
        let twice = Tokens::parse(&format!("a writer x - {HASH}\nb writer y - {HASH}"));
        assert!(matches!(twice, Err((2, GrantError::HashTwice { .. }))));
        let twice = Tokens::parse(&format!("a writer x - {HASH}\na writer y - {other}"));
        assert!(matches!(twice, Err((2, GrantError::NameTwice { .. }))));
    }

    #[test]
    fn a_new_token_is_found_by_itself_alone_and_stands_nowhere() {
        let make = |name| {
            Grant::make((name, Role::Reader), Key::new("x").ok(), Some(ByteSize(7)), &SystemRandom).unwrap()
        };
        let ((one, token), (two, other)) = (make("one"), make("two"));
        let text = format!("{one}\n{two}\n");
        assert!(!text.contains(token.as_str()) && !text.contains(&token[4..]));
        let tokens = Tokens::parse(&text).unwrap();
        assert_eq!(tokens.find(token.as_bytes()), Some(&one));
        assert_eq!(tokens.find(other.as_bytes()), Some(&two));
        for wrong in
            [&b""[..], b"lbt_", &token.as_bytes()[1..], HASH.as_bytes(), one.hash.to_string().as_bytes()]
        {
            assert_eq!(tokens.find(wrong), None);
        }
        assert!(Grant::make(("a b", Role::Reader), None, None, &SystemRandom).is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_a_panic_and_what_is_read_is_written_alike(text in "([a-z./ #-]{0,12}( writer|\n){0,2}){0,6}") {
            let text = text.replace(" writer", &format!(" writer x - {HASH}"));
            if let Ok(tokens) = Tokens::parse(&text) {
                let lines: String = tokens.0.iter().map(|grant| format!("{grant}\n")).collect();
                prop_assert_eq!(Tokens::parse(&lines), Ok(tokens));
            }
        }
    }
}
