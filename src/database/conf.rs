//! Lines of a configuration file of PostgreSQL, and command lines in them.

/// What cannot stand in a configuration file: a line break or a zero byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a value for PostgreSQL's configuration holds a line break or a zero byte")]
pub struct NotALine;

/// A setting, as one line.
pub fn setting(name: &str, value: &str) -> Result<String, NotALine> {
    if value.contains(['\n', '\r', '\0']) {
        return Err(NotALine);
    }
    let value = value.replace('\\', "\\\\").replace('\'', "''");
    Ok(format!("{name} = '{value}'\n"))
}

/// A word of a command that a shell starts after PostgreSQL has put in what `%` stands for.
pub fn word(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''").replace('%', "%%"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_stays_one_value() {
        assert_eq!(setting("a", r"it's \ x"), Ok("a = 'it''s \\\\ x'\n".to_owned()));
        for bad in ["a\nb", "a\rb", "a\0b"] {
            assert_eq!(setting("a", bad), Err(NotALine));
        }
    }

    #[test]
    fn a_word_stays_one_word() {
        assert_eq!(word("a b"), "'a b'");
        assert_eq!(word("it's 100%p $(rm)"), r"'it'\''s 100%%p $(rm)'");
    }
}
