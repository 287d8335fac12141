//! An explicit-state model of the refresh protocol.
#![allow(clippy::unwrap_used)]
mod action;
mod apply;
mod check;
mod enabled;
mod faults;
mod properties;
mod protocol;
mod refresh;
mod revoke;
mod state;
mod step_names;

use faults::{Budget, Fault};
use protocol::{Protocol, Provider};

#[test]
fn explore() {
    use Fault::*;
    let n: usize = std::env::var("N").ok().and_then(|n| n.parse().ok()).unwrap_or(2);
    let fs = std::env::var("F").unwrap_or_default();
    let mut b = Budget::two_refreshes();
    for f in fs.split(',') {
        let (name, k) = f.split_once('=').unwrap_or((f, "1"));
        let k: u8 = k.parse().unwrap();
        for x in Fault::ALL {
            if format!("{x:?}") == name { b = b.with(x, k); }
        }
    }
    let provs: Vec<Provider> = match std::env::var("P") { Ok(p) => Provider::ALL.into_iter().filter(|x| format!("{x:?}") == p).collect(), Err(_) => vec![Provider::StrictKill] };
    for p in provs {
        let mut pr = Protocol::built("x", n, p, b);
        let v = std::env::var("V").unwrap_or_default();
        for v in v.split(',') { match v { "comp" => pr.compensation = false, "again" => pr.tell_again = false, "tomb" => pr.tombstone=false, "limit"=>pr.limit_from_permit=false,"fresh"=>pr.fresh_permits_last=false,"own"=>pr.own_permits_last=false,"x1"=>pr.excused=&["I1:"], "slot"=>pr.entry_per_token=false, "keep"=>pr.keep_successors=false,"hold"=>pr.hold=false,"version"=>pr.guard=protocol::Guard::Version,"lock"=>{pr.claim=false;pr.guard=protocol::Guard::None;pr.copies=false}, "memory"=>pr.tell_from_memory=false,"bury"=>pr.bury_again=false,"ask"=>pr.settle_asks_redis=false,"demote"=>pr.demote_guarded=false, "raise"=>pr.raise_epoch=false, _=>{} } }
        let t = std::time::Instant::now();
        let o = check::search(&pr, 40_000_000);
        println!("{p:?}\n{}\n{:?} reached {:?} {:?} {:?}", check::line(&pr, &o), t.elapsed(), o.reached, o.steps, o.faults);
    }
    let _ = (Due, check::head(), check::allowed(&b), step_names::STEP_NAMES);
}
