//! H2: the refresh tokens that were stored form a path in the provider's issue tree. A stored pair is seen by its access
//! token, which every answer shows with its generation; the last one also in the row.

use std::collections::{BTreeMap, BTreeSet};

use super::{Answer, CredentialNo, GrantNo, History, Issue, Rules};

pub(super) fn check(history: &History) -> Vec<String> {
    let mut seen: BTreeMap<(CredentialNo, GrantNo), BTreeMap<i64, BTreeSet<Issue>>> = BTreeMap::new();
    let mut see = |credential, grant, generation, issue| {
        seen.entry((credential, grant)).or_default().entry(generation).or_default().insert(issue);
    };
    for call in &history.calls {
        if let Answer::Token { grant, issue, generation } = call.answer {
            see(call.credential, grant, generation, issue);
        }
    }
    for row in &history.rows {
        if let Some((grant, issue)) = row.access {
            see(row.credential, grant, row.generation, issue);
        }
    }
    let mut found = Vec::new();
    for ((credential, number), generations) in &seen {
        let Some(grant) = history.grants.get(number) else {
            found.push(format!("credential {credential} has tokens of grant {number}, which nobody made"));
            continue;
        };
        if grant.credential != *credential {
            found.push(format!("credential {credential} has tokens of credential {}", grant.credential));
        }
        let mut last: Option<(i64, Issue)> = None;
        for (generation, issues) in generations {
            if issues.len() > 1 {
                found.push(format!(
                    "generation {generation} of credential {credential} is more than one pair: {issues:?}"
                ));
            }
            let Some(&issue) = issues.first() else { continue };
            // Where nothing rotates, all access tokens hang on the one refresh token, and their order says nothing.
            if let Some((before, older)) = last
                && grant.rules != Rules::Steady
                && !grant.descends(issue, older)
            {
                found.push(format!(
                    "generation {generation} of credential {credential} (pair {number}/{issue}) does not descend from \
                     generation {before} (pair {number}/{older})"
                ));
            }
            last = Some((*generation, issue));
        }
    }
    found
}
