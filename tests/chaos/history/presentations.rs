//! H1: calls presenting one refresh token never overlap, and how often each was presented.

use std::collections::BTreeMap;

use super::{GrantNo, History, Issue, Presentation, Rules, ms};

/// The presentations of each refresh token, in the order of their beginnings.
pub(crate) fn per_token(history: &History) -> BTreeMap<(GrantNo, Issue), Vec<&Presentation>> {
    let mut tokens: BTreeMap<_, Vec<&Presentation>> = BTreeMap::new();
    for presentation in &history.presentations {
        tokens.entry((presentation.grant, presentation.issue)).or_default().push(presentation);
    }
    for presentations in tokens.values_mut() {
        presentations.sort_by_key(|presentation| presentation.began);
    }
    tokens
}

pub(super) fn check(history: &History) -> Vec<String> {
    let mut found = Vec::new();
    for ((grant, issue), presentations) in per_token(history) {
        // A token that stays good may be presented as often as one likes.
        if history.grants.get(&grant).is_some_and(|grant| grant.rules == Rules::Steady) {
            continue;
        }
        let mut last: Option<&Presentation> = None;
        for next in presentations {
            if let Some(before) = last.filter(|before| next.began < before.ended) {
                found.push(format!(
                    "refresh token {grant}/{issue} was presented from {} to {} and again from {}",
                    ms(before.began),
                    ms(before.ended),
                    ms(next.began)
                ));
            }
            if last.is_none_or(|before| next.ended > before.ended) {
                last = Some(next);
            }
        }
    }
    found
}
