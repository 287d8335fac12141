//! H4: the generations that one client sees of one grant never go back, whichever replica it asks.

use std::collections::BTreeMap;

use super::{Answer, History, Question, ms};

pub(super) fn check(history: &History) -> Vec<String> {
    let mut calls: Vec<_> = history.calls.iter().collect();
    calls.sort_by_key(|call| call.invoked);
    let mut highest = BTreeMap::new();
    let mut found = Vec::new();
    for call in calls {
        let Answer::Token { grant, generation, .. } = call.answer else { continue };
        if let Question::Refresh(expected) = call.question
            && generation <= expected
        {
            found.push(format!(
                "credential {}: Refresh of generation {expected} answered generation {generation} at {}",
                call.credential,
                ms(call.returned)
            ));
        }
        let seen = highest.entry((call.client, call.credential, grant)).or_insert(generation);
        if generation < *seen {
            found.push(format!(
                "client {} saw generation {generation} of credential {} from replica {} at {}, after generation {seen}",
                call.client,
                call.credential,
                call.replica,
                ms(call.returned)
            ));
        }
        *seen = generation.max(*seen);
    }
    found
}
