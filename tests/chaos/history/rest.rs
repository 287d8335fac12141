//! H7: at rest the stored refresh token is the provider's live one; nothing is left half done, and no row was given up
//! while its grant was alive. A token whose successor was lost inside its window, and whose last chance has met a provider
//! that would not look at it, is a loss that the broker will find out; so is one whose pair came from a journal when its
//! grant had been ended.

use super::losses::{losses, not_found_out};
use super::{Cause, History, RowState, Rules};

pub(super) fn check(history: &History) -> Vec<String> {
    if history.rows.is_empty() {
        return vec!["the run has not come to rest".to_owned()];
    }
    let came_late: Vec<_> = losses(history)
        .into_iter()
        .filter(|loss| matches!(loss.cause, Some(Cause::JournalAway(_))))
        .map(|loss| loss.grant)
        .collect();
    let mut found = Vec::new();
    for row in &history.rows {
        let credential = row.credential;
        let live = row.refresh.is_some_and(|(grant, issue)| {
            history.grants.get(&grant).is_some_and(|grant| match grant.rules {
                Rules::Steady => grant.end.is_none(),
                Rules::Strict | Rules::Grace(_) => grant.is_live(issue),
            })
        });
        let alive =
            row.refresh.is_some_and(|(grant, _)| history.grants.get(&grant).is_some_and(|g| g.end.is_none()));
        let dead_when_it_came = row.refresh.is_some_and(|(grant, _)| came_late.contains(&grant));
        match row.state {
            RowState::Active if dead_when_it_came => {}
            RowState::Active if !live && not_found_out(history, row).is_none() => found.push(format!(
                "credential {credential} is active with refresh token {:?}, which is not the live one",
                row.refresh
            )),
            RowState::NeedsReauth if alive => found.push(format!(
                "credential {credential} wants a new consent, and its grant {:?} is alive",
                row.refresh
            )),
            RowState::Refreshing => found.push(format!("credential {credential} is still being refreshed")),
            RowState::Active | RowState::NeedsReauth | RowState::Revoked => {}
        }
    }
    found
}
