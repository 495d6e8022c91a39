//! JSON as text: enough for the admin door, which only writes it.

use std::fmt::{Display, Write};

/// An object under construction. Names are literals of this program and need no escapes.
#[derive(Debug)]
pub(super) struct Object {
    text: String,
}

impl Object {
    pub(super) fn new() -> Self {
        Self { text: "{".to_owned() }
    }

    /// With `name` and a value that is JSON already: a number, an array, another object.
    pub(super) fn with(mut self, name: &str, value: impl Display) -> Self {
        let comma = if self.text.len() > 1 { "," } else { "" };
        // Writing to a String cannot fail.
        let _infallible = write!(self.text, "{comma}\"{name}\":{value}");
        self
    }

    /// With `name` and a string.
    pub(super) fn with_text(self, name: &str, value: &str) -> Self {
        self.with(name, quoted(value))
    }

    /// With `name` and a value that may be missing: `null`.
    pub(super) fn with_option(self, name: &str, value: Option<impl Display>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self.with(name, "null"),
        }
    }

    pub(super) fn end(mut self) -> String {
        self.text.push('}');
        self.text
    }
}

/// An array of values that are JSON already.
pub(super) fn array(items: impl IntoIterator<Item = String>) -> String {
    let items: Vec<String> = items.into_iter().collect();
    format!("[{}]", items.join(","))
}

/// A string with its quotes and escapes.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for letter in text.chars() {
        match letter {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            control if control < ' ' => {
                let _infallible = write!(out, "\\u{:04x}", u32::from(control));
            }
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_and_arrays_are_json() {
        let object = Object::new()
            .with("a", 1)
            .with_text("b", "x\"\\\n\u{1}ü")
            .with_option("c", None::<u8>)
            .with_option("d", Some(2))
            .with("e", array(["1".to_owned(), quoted("")]));
        let expected = r#"{"a":1,"b":"x\"\\\u000a\u0001ü","c":null,"d":2,"e":[1,""]}"#;
        assert_eq!(object.end(), expected);
        assert_eq!(Object::new().end(), "{}");
        assert_eq!(array([]), "[]");
    }
}
