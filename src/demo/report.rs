//! What the demo prints: numbered steps, the calls behind them, the answers, and whether they are as expected.

use std::io::Write;

use super::error::DemoError;

/// Characters of a token that are shown; the rest is left out.
const SHOWN: usize = 12;
/// Characters of a page that are shown.
const MAX_TEXT: usize = 76;

/// Prints.
pub(super) struct Report<'a> {
    out: &'a mut (dyn Write + Send),
    colour: bool,
    steps: u32,
    checks: u32,
}

/// SGR parameters (ECMA-48 section 8.3.117).
#[derive(Clone, Copy)]
enum Style {
    Bold,
    Dim,
    Green,
    Red,
    Cyan,
}

impl<'a> Report<'a> {
    pub(super) fn new(out: &'a mut (dyn Write + Send), colour: bool) -> Self {
        Self { out, colour, steps: 0, checks: 0 }
    }

    /// A line as it is.
    pub(super) fn line(&mut self, text: &str) -> Result<(), DemoError> {
        writeln!(self.out, "{text}")?;
        Ok(self.out.flush()?)
    }

    /// A step begins.
    pub(super) fn step(&mut self, heading: &str) -> Result<(), DemoError> {
        self.steps += 1;
        let heading = self.styled(Style::Bold, &format!("{}. {heading}", self.steps));
        self.line(&format!("\n{heading}"))
    }

    /// Somebody does something.
    pub(super) fn act(&mut self, who: &str, text: &str) -> Result<(), DemoError> {
        let who = self.styled(Style::Cyan, &format!("{who:<9}"));
        self.line(&format!("   {who} {text}"))
    }

    /// A gRPC call with its main fields.
    pub(super) fn call(&mut self, method: &str, fields: &str) -> Result<(), DemoError> {
        let method = self.styled(Style::Bold, method);
        self.act("call", format!("{method}  {fields}").trim_end())
    }

    /// The answer to it.
    pub(super) fn answer(&mut self, text: &str) -> Result<(), DemoError> {
        self.act("answer", text)
    }

    /// Background for the reader.
    pub(super) fn note(&mut self, text: &str) -> Result<(), DemoError> {
        let text = self.styled(Style::Dim, text);
        self.line(&format!("   {text}"))
    }

    /// An expectation.
    pub(super) fn check(&mut self, held: bool, what: &str) -> Result<(), DemoError> {
        if held {
            self.checks += 1;
            let mark = self.styled(Style::Green, "✓");
            return self.line(&format!("   {mark} {what}"));
        }
        let mark = self.styled(Style::Red, "✗");
        self.line(&format!("   {mark} {what}"))?;
        Err(DemoError::NotAsExpected(what.to_owned()))
    }

    /// How many expectations held.
    pub(super) fn checks(&self) -> u32 {
        self.checks
    }

    fn styled(&self, style: Style, text: &str) -> String {
        if !self.colour {
            return text.to_owned();
        }
        let code = match style {
            Style::Bold => 1,
            Style::Dim => 2,
            Style::Red => 31,
            Style::Green => 32,
            Style::Cyan => 36,
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }
}

/// A token's beginning, for a reader to tell it from another.
pub(super) fn masked(token: &str) -> String {
    let shown: String = token.chars().take(SHOWN.min(token.chars().count() / 4)).collect();
    format!("{shown}…")
}

/// The beginning of a longer text, up to the end of a word.
pub(super) fn shortened(text: &str) -> String {
    let mut short = String::new();
    for word in text.split_whitespace() {
        if short.chars().count() + word.chars().count() > MAX_TEXT {
            return format!("{short} …");
        }
        if !short.is_empty() {
            short.push(' ');
        }
        short.push_str(word);
    }
    short
}

/// A URL without its query, where the secrets are.
pub(super) fn without_query(url: &str) -> String {
    url.split_once('?').map_or_else(|| url.to_owned(), |(base, _)| format!("{base}?…"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_token_and_no_link_is_shown_whole() {
        assert_eq!(masked("demo-at-0123456789abcdefghijklmnopqrstuvwxyz0123456"), "demo-at-0123…");
        assert_eq!(masked("short-token"), "sh…");
        assert_eq!(shortened("short  enough"), "short enough");
        assert_eq!(shortened(&"word ".repeat(20)), format!("{} …", "word ".repeat(15).trim_end()));
        assert_eq!(without_query("http://127.0.0.1/authorize?state=x"), "http://127.0.0.1/authorize?…");
    }

    #[test]
    fn an_expectation_that_does_not_hold_is_shown_and_ends_it() {
        let mut out = Vec::new();
        let mut report = Report::new(&mut out, false);
        report.step("First").unwrap();
        report.check(true, "held").unwrap();
        let error = report.check(false, "did not hold").unwrap_err();
        assert_eq!((error.to_string().as_str(), report.checks()), ("not as expected: did not hold", 1));
        assert_eq!(String::from_utf8(out).unwrap(), "\n1. First\n   ✓ held\n   ✗ did not hold\n");
    }
}
