//! Everything that there is in the model's world: one credential at one provider, its row, Redis, the replicas with their
//! journals, what is on the wire, and what may still go wrong.

use crate::faults::Budget;

/// A refresh token: the so-manyth of a consent. The provider's answers number them upwards, so "later" can be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Token {
    /// The consent it belongs to, counted from 0.
    pub(crate) grant: u8,
    /// Its place in the row of rotations, counted from 1.
    pub(crate) serial: u8,
}

/// What a presentation has brought: `child` in exchange for `parent`. This is what the journal and the permit store copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Pair {
    pub(crate) parent: Token,
    pub(crate) child: Token,
    /// Of the claim under which the parent was presented.
    pub(crate) epoch: u8,
}

// ---- the provider ---------------------------------------------------------------------------------------------------

/// A consent as the provider sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Grant {
    /// The refresh token that it accepts.
    pub(crate) live: u8,
    /// The newest it has given out. More than `live` only where a grace period hands out several.
    pub(crate) issued: u8,
    /// The token before `live`, while the grace period lasts.
    pub(crate) grace: Option<u8>,
    pub(crate) end: GrantEnd,
    /// Ghost: a fault has destroyed the last copy of its live token. See `faults::note_loss`.
    pub(crate) lost: bool,
}

/// Whether and why a grant has ended at the provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum GrantEnd {
    Alive,
    /// A refresh token was presented twice.
    Reuse,
    /// The broker said so.
    Revoked,
}

// ---- the database ---------------------------------------------------------------------------------------------------

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Status {
    Active,
    Refreshing,
    NeedsReauth,
    Revoked,
}

/// The credential's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Row {
    pub(crate) status: Status,
    /// The refresh token. Revoking moves it to the outbox; here the field goes on to say which grant the row had.
    pub(crate) token: Token,
    /// The token that `token` was obtained with.
    pub(crate) parent: Option<Token>,
    /// The claim that obtained `token` (`rt_epoch`).
    pub(crate) token_epoch: u8,
    /// Counts claims, revokes and consents.
    pub(crate) epoch: u8,
    /// Counts stored pairs; callers see it.
    pub(crate) generation: u8,
    /// Counts all writes; only the mutant that guards by it looks at it, so it stands still elsewhere.
    pub(crate) version: u8,
}

/// A revocation that the provider has to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct OutboxRow {
    pub(crate) token: Token,
    /// It was told once; the outcome of a refresh that was under way is still open, so it is told again after settling.
    pub(crate) told: bool,
}

/// What commits and rolls back together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Database {
    pub(crate) row: Row,
    /// Revoked grants, a bit each. They are known after a new consent has replaced the row's grant, too.
    pub(crate) revoked: u8,
    pub(crate) outbox: Vec<OutboxRow>,
}

// ---- Redis ----------------------------------------------------------------------------------------------------------

/// What the permit store knows about a refresh token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Entry {
    /// Somebody may have presented it. Whose permit it is stands in [`Replica::permit`]; a dead process's is nobody's.
    Permit,
    /// It was presented, and this came of it.
    Successor(Pair),
}

/// The permit store: a map from refresh token to entry, and a tombstone that names a grant.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Redis {
    /// Sorted by token.
    pub(crate) entries: Vec<(Token, Entry)>,
    pub(crate) tombstone: Option<u8>,
}

impl Redis {
    pub(crate) fn entry(&self, token: Token) -> Option<Entry> {
        self.entries.iter().find(|(key, _)| *key == token).map(|(_, entry)| *entry)
    }

    pub(crate) fn set(&mut self, token: Token, entry: Entry) {
        self.remove(token);
        self.entries.push((token, entry));
        self.entries.sort_unstable();
    }

    pub(crate) fn remove(&mut self, token: Token) {
        self.entries.retain(|(key, _)| *key != token);
    }
}

// ---- the replicas ---------------------------------------------------------------------------------------------------

/// How far a replica's refresh has come. One refresh per credential runs in a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Phase {
    Idle,
    /// It has read the row and got the permit (or could not ask for it).
    Permitted {
        settles: bool,
    },
    Claimed,
    /// The request is on its way to the provider.
    Calling,
    /// The provider has acted; its answer is on the way back.
    Answering(Answer),
    /// The new pair is in memory, and in those copies.
    Holding {
        child: Token,
        copies: Copies,
    },
    /// The row has the pair, or another grant, or the outbox has the pair: its grant was revoked. Copies that are not made
    /// yet still are: the database may forget its answer.
    Stored {
        child: Token,
        copies: Copies,
    },
    /// The provider has called the grant dead.
    Refused,
    /// The token was certainly not spent.
    Unspent,
    /// The claim is released; the permit is still to be given back.
    Releasing,
}

/// What the provider says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Answer {
    Token(Token),
    InvalidGrant,
}

/// The two copies of a new pair that are made in parallel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Copies {
    pub(crate) journal: Copy,
    pub(crate) successor: Copy,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Copy {
    Pending,
    Done,
    /// Redis did not answer. The refresh goes on with the journal alone.
    Failed,
}

impl Copies {
    pub(crate) const NONE: Self = Self { journal: Copy::Pending, successor: Copy::Pending };
    /// Of variants that make no copies.
    pub(crate) const UNUSED: Self = Self { journal: Copy::Failed, successor: Copy::Failed };

    /// One copy is enough to go on, and so is knowing that there will be none.
    pub(crate) fn one_is_safe(self) -> bool {
        self.journal == Copy::Done || self.successor == Copy::Done || self == Self::UNUSED
    }

    pub(crate) fn none_is_pending(self) -> bool {
        self.journal != Copy::Pending && self.successor != Copy::Pending
    }
}

/// A record in a replica's journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Record {
    pub(crate) pair: Pair,
    /// The database has acknowledged it, so it will be forgotten after a while: in the model, when the next one is written.
    pub(crate) stored: bool,
}

/// A process and its disk. All are alike, which the checker uses: see `State::canonical`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Replica {
    pub(crate) phase: Phase,
    /// The token that it read from the row, if it is not idle.
    pub(crate) token: Token,
    /// The row's epoch as it was read; from the claim on, the claim's.
    pub(crate) epoch: u8,
    /// The row's version at the claim. Only for the mutant that guards by it.
    pub(crate) version: u8,
    /// The token whose permit in Redis is this process's.
    pub(crate) permit: Option<Token>,
    pub(crate) journal: Option<Record>,
    /// It has restarted and has not looked through its journal yet.
    pub(crate) replays: bool,
}

/// No token: what an idle replica's fields are set to, so that equal situations are equal states.
pub(crate) const NO_TOKEN: Token = Token { grant: 0, serial: 0 };

impl Replica {
    pub(crate) const IDLE: Self = Self {
        phase: Phase::Idle,
        token: NO_TOKEN,
        epoch: 0,
        version: 0,
        permit: None,
        journal: None,
        replays: false,
    };

    /// The refresh task is over; what it leaves in Redis and in the journal stays.
    pub(crate) fn rest(&mut self) {
        *self = Self { permit: self.permit, journal: self.journal, replays: self.replays, ..Self::IDLE };
    }

    /// Whether it is at a point where it presents this token, or handles the answer, without looking at the row again.
    pub(crate) fn moves(&self, token: Token) -> bool {
        let moves = !matches!(self.phase, Phase::Idle | Phase::Permitted { .. } | Phase::Releasing);
        self.token == token && moves
    }

    /// The new pair, if it has one in memory.
    pub(crate) fn held(&self) -> Option<Pair> {
        match self.phase {
            Phase::Holding { child, .. } | Phase::Stored { child, .. } => {
                Some(Pair { parent: self.token, child, epoch: self.epoch })
            }
            _ => None,
        }
    }
}

// ---- all of it ------------------------------------------------------------------------------------------------------

/// Ghosts: what the properties need to remember of the past. The protocol does not see them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Ghosts {
    /// Two calls presented one refresh token at the same time (I1).
    pub(crate) overlap: bool,
    /// A pair was stored over a later one of the same grant (I2).
    pub(crate) went_back: bool,
    /// A pair was thrown away while its parent was in the row (I7).
    pub(crate) discarded: bool,
    /// A refusal demoted a row that had another token, or another claim, than the refused one (I8).
    pub(crate) demoted_moved: bool,
    /// Grants whose revoke was acknowledged, a bit each (I3).
    pub(crate) acknowledged: u8,
}

/// How far a revoke has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Revoking {
    /// The tombstone of this grant is to be seen, or Redis did not answer.
    Buried { grant: u8 },
    /// The transaction has revoked this grant, another one than was buried: a consent came between the two.
    Moved { grant: u8 },
}

/// A state of the world.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) grants: Vec<Grant>,
    pub(crate) database: Database,
    /// The database as it was before its last commit, while it may still lose that.
    pub(crate) before_last_commit: Option<Database>,
    pub(crate) redis: Redis,
    pub(crate) replicas: Vec<Replica>,
    /// Requests on their way to the provider whose senders do not listen any more. Sorted.
    pub(crate) abandoned: Vec<Token>,
    /// A user's revoke that is under way.
    pub(crate) revoking: Option<Revoking>,
    /// The access tokens of this grant that were obtained up to this claim are about to expire, and all of former grants. It is
    /// time that has passed, so no rollback undoes it.
    pub(crate) expired: Option<(u8, u8)>,
    pub(crate) budget: Budget,
    pub(crate) ghosts: Ghosts,
}

/// A bit for a grant, in the sets of grants.
pub(crate) fn bit(grant: u8) -> u8 {
    1 << grant
}

impl State {
    pub(crate) fn initial(replicas: usize, budget: Budget) -> Self {
        let row = Row {
            status: Status::Active,
            token: Token { grant: 0, serial: 1 },
            parent: None,
            token_epoch: 0,
            epoch: 0,
            generation: 1,
            version: 0,
        };
        Self {
            grants: vec![Grant { live: 1, issued: 1, grace: None, end: GrantEnd::Alive, lost: false }],
            database: Database { row, revoked: 0, outbox: Vec::new() },
            before_last_commit: None,
            redis: Redis { entries: Vec::new(), tombstone: None },
            replicas: vec![Replica::IDLE; replicas],
            abandoned: Vec::new(),
            revoking: None,
            expired: None,
            budget,
            ghosts: Ghosts::default(),
        }
    }

    pub(crate) fn row(&self) -> &Row {
        &self.database.row
    }

    /// The row's access token is about to expire.
    pub(crate) fn is_due(&self) -> bool {
        let row = self.row();
        row.status == Status::Active && Some((row.token.grant, row.token_epoch)) <= self.expired
    }

    /// The grant that the row has, at the provider.
    pub(crate) fn row_grant(&self) -> &Grant {
        &self.grants[usize::from(self.database.row.token.grant)]
    }

    pub(crate) fn is_revoked(&self, grant: u8) -> bool {
        self.database.revoked & bit(grant) != 0
    }

    /// The same state with its replicas in a fixed order: they are alike, so it does not matter which is which. Answers
    /// where each stood before.
    pub(crate) fn canonical(&mut self) -> Vec<usize> {
        let mut order = (0..self.replicas.len()).collect::<Vec<_>>();
        order.sort_by_key(|index| self.replicas[*index]);
        self.replicas = order.iter().map(|index| self.replicas[*index]).collect();
        order
    }
}
