//! The decision as a table: what the row says, when it is, what is wanted.

use jiff::SignedDuration;

use super::*;
use crate::domain::credential::{Claim, Fingerprint, Sealed, StoredRefreshToken};
use crate::domain::key::{
    Account, ClaimOwner, CredentialId, CredentialKey, GrantId, GrantName, ProviderId, TenantId, UserId,
};
use crate::domain::scope::ScopeSet;
use crate::domain::token_set::AccessLife;

/// The token is an hour old-to-be: from second 0 to 3,600, handed out until 3,540.
const HOUR: Duration = Duration::from_secs(3600);
const POLICY: RefreshPolicy =
    RefreshPolicy { margin: Duration::from_secs(60), refresh_ahead: Duration::from_secs(300) };
const ANY: Demand = Demand::ValidFor(Duration::ZERO);
const SERVE: Decision = Decision::Serve { refresh_behind: false, failure: None };
const SERVE_AND_REFRESH: Decision = Decision::Serve { refresh_behind: true, failure: None };

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn tokens(refreshable: bool, life: Option<Duration>) -> StoredTokens {
    let refresh = StoredRefreshToken {
        sealed: Sealed(Vec::new()),
        fingerprint: Fingerprint([0; 32]),
        parent_fingerprint: None,
        epoch: 0,
    };
    StoredTokens {
        access_sealed: Sealed(Vec::new()),
        access_life: AccessLife::starting(at(0), life),
        token_type: "Bearer".to_owned(),
        refresh: refreshable.then_some(refresh),
        profile_sealed: Sealed(Vec::new()),
        scopes: ScopeSet::default(),
        scopes_assumed: false,
        next_refresh_at: None,
    }
}

fn row(state: CredentialState) -> Credential {
    Credential {
        id: CredentialId::from_random([1; 16]),
        key: CredentialKey {
            tenant: TenantId::new("t").unwrap(),
            provider: ProviderId::new("p").unwrap(),
            user: UserId::new("u").unwrap(),
            grant: GrantName::new("g").unwrap(),
            account: Account::default(),
        },
        created_at: at(0),
        updated_at: at(0),
        grant_id: GrantId::from_random([2; 16]),
        configuration: None,
        generation: 7,
        epoch: 3,
        state,
    }
}

fn active(back_off: Option<BackOff>) -> Credential {
    row(CredentialState::Active { tokens: tokens(true, Some(HOUR)), back_off })
}

/// Claimed at second 3,300: the request ends by 3,332, the outcome is settled from 3,600 on.
fn refreshing() -> Credential {
    let claim = Claim { owner: ClaimOwner::from_random([3; 16]), deadline: at(3332), settle_at: at(3600) };
    row(CredentialState::Refreshing { tokens: tokens(true, Some(HOUR)), claim, failures: 0 })
}

fn check(row: &Credential, cases: &[(i64, Demand, Decision)]) {
    for (second, demand, expected) in cases {
        assert_eq!(decide(row, at(*second), *demand, POLICY), *expected, "second {second}, {demand:?}");
    }
}

#[test]
fn an_active_row_is_served_then_refreshed_behind_then_refreshed() {
    let half = Demand::ValidFor(HOUR / 2);
    check(
        &active(None),
        &[
            (0, ANY, SERVE),
            (3239, ANY, SERVE),
            (3240, ANY, SERVE_AND_REFRESH),
            (3539, ANY, SERVE_AND_REFRESH),
            (3540, ANY, Decision::Refresh),
            (99_999, ANY, Decision::Refresh),
            (1739, half, SERVE),
            (1740, half, Decision::Refresh),
            // Nobody gets more than half of the token's life.
            (1739, Demand::ValidFor(Duration::MAX), SERVE),
            (3239, Demand::Ahead, SERVE),
            (3240, Demand::Ahead, Decision::Refresh),
        ],
    );
}

#[test]
fn a_report_of_a_refused_token_counts_for_its_generation_only() {
    check(
        &active(None),
        &[
            (0, Demand::NewerThan(7), Decision::Refresh),
            (0, Demand::NewerThan(6), SERVE),
            (3540, Demand::NewerThan(6), Decision::Refresh),
        ],
    );
}

#[test]
fn back_off_keeps_the_provider_alone_and_readers_served() {
    let last = RefreshFailure::RateLimited;
    let back_off = BackOff { not_before: at(3570), failures: 2, last };
    let served = Decision::Serve { refresh_behind: false, failure: Some(last) };
    let blocked = Decision::BackOff { until: at(3570), failure: last };
    check(
        &active(Some(back_off)),
        &[
            (3300, ANY, served),
            (3300, Demand::Ahead, served),
            // Less life than asked for, but life.
            (3300, Demand::ValidFor(HOUR / 2), served),
            (3300, Demand::NewerThan(7), blocked),
            (3540, ANY, blocked),
            (3570, ANY, Decision::Refresh),
        ],
    );
    let over = BackOff { not_before: at(3250), failures: 1, last };
    let again = Decision::Serve { refresh_behind: true, failure: Some(last) };
    check(&active(Some(over)), &[(3300, ANY, again)]);
}

#[test]
fn without_a_refresh_token_a_token_is_served_to_its_end() {
    let expired = Decision::Reauthorize(Reauthorize::Reason(ReauthReason::ExpiredNoRefresh));
    let row = row(CredentialState::Active { tokens: tokens(false, Some(HOUR)), back_off: None });
    check(
        &row,
        &[
            (0, ANY, SERVE),
            (3300, ANY, SERVE),
            (3300, Demand::ValidFor(HOUR), SERVE),
            (3300, Demand::NewerThan(7), expired),
            (3540, ANY, expired),
            (3540, Demand::Ahead, expired),
        ],
    );
}

#[test]
fn a_token_without_an_end_is_refreshed_on_report_only() {
    let row = row(CredentialState::Active { tokens: tokens(true, None), back_off: None });
    check(
        &row,
        &[
            (i64::from(u32::MAX), ANY, SERVE),
            (i64::from(u32::MAX), Demand::ValidFor(Duration::MAX), SERVE),
            (0, Demand::NewerThan(7), Decision::Refresh),
        ],
    );
}

#[test]
fn i1_a_claimed_row_is_settled_or_waited_for_but_never_refreshed() {
    let unknown = Some(RefreshFailure::OutcomeUnknown);
    check(
        &refreshing(),
        &[
            (3310, ANY, SERVE),
            (3332, ANY, Decision::Serve { refresh_behind: false, failure: unknown }),
            (3310, Demand::ValidFor(HOUR / 2), Decision::Wait { settle_at: at(3600) }),
            (3310, Demand::NewerThan(7), Decision::Wait { settle_at: at(3600) }),
            (3310, Demand::Ahead, Decision::Wait { settle_at: at(3600) }),
            (3540, ANY, Decision::Wait { settle_at: at(3600) }),
            (3600, ANY, Decision::Settle),
            (3600, Demand::Ahead, Decision::Settle),
        ],
    );
    // A settling that is due waits for nobody who has a token.
    let mut long = refreshing();
    if let CredentialState::Refreshing { tokens, .. } = &mut long.state {
        tokens.access_life = AccessLife::starting(at(0), Some(HOUR * 24));
    }
    check(&long, &[(3600, ANY, Decision::Serve { refresh_behind: true, failure: unknown })]);
}

#[test]
fn dead_and_revoked_rows_ask_the_user() {
    let reason = ReauthReason::RefreshTokenRejected;
    let dead = row(CredentialState::NeedsReauth { tokens: tokens(true, Some(HOUR)), reason });
    let revoked = row(CredentialState::Revoked);
    for demand in [ANY, Demand::Ahead, Demand::NewerThan(7)] {
        let asked = Decision::Reauthorize(Reauthorize::Reason(reason));
        check(&dead, &[(0, demand, asked), (99_999, demand, asked)]);
        check(&revoked, &[(0, demand, Decision::Reauthorize(Reauthorize::Revoked))]);
    }
}

#[test]
fn back_off_doubles_up_to_a_quarter_of_an_hour_less_up_to_a_fifth() {
    for (failures, seconds) in [(0, 1), (1, 1), (2, 2), (5, 16), (10, 512), (11, 900), (u32::MAX, 900)] {
        let longest = Duration::from_secs(seconds);
        assert_eq!(back_off_delay(failures, 0), longest);
        assert_eq!(back_off_delay(failures, 255), longest * 4 / 5);
    }
}

#[test]
fn the_margin_of_a_short_token_is_a_tenth_of_its_life() {
    let life = Duration::from_secs(10);
    let row = row(CredentialState::Active { tokens: tokens(true, Some(life)), back_off: None });
    let just_before = at(9) - SignedDuration::from_millis(1);
    assert!(matches!(decide(&row, just_before, ANY, POLICY), Decision::Serve { .. }));
    assert_eq!(decide(&row, at(9), ANY, POLICY), Decision::Refresh);
}
