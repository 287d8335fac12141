//! Rates, buckets and networks, by table.

use super::*;

const SECOND: u64 = 1_000_000;

fn rate(per_second: u32, burst: u64) -> Rate {
    Rate::new(per_second, Duration::from_secs(burst)).unwrap()
}

fn bucket(parts: &[&[u8]]) -> Bucket {
    Bucket::new(RateLimit::User, rate(10, 2), parts)
}

#[test]
fn a_bucket_gives_its_burst_and_then_its_rate() {
    let rate = rate(10, 2);
    let mut full_at = 0;
    let mut now = 5 * SECOND;
    for _ in 0..20 {
        full_at = rate.take(full_at, now).unwrap();
    }
    assert_eq!(rate.take(full_at, now), Err(Duration::from_millis(100)));
    now += 50_000;
    assert_eq!(rate.take(full_at, now), Err(Duration::from_millis(50)));
    now += 50_000;
    full_at = rate.take(full_at, now).unwrap();
    assert!(rate.take(full_at, now).is_err());
    // After a rest the burst is there again, and no more.
    now += 3600 * SECOND;
    for _ in 0..20 {
        full_at = rate.take(full_at, now).unwrap();
    }
    assert!(rate.take(full_at, now).is_err());
}

#[test]
fn the_smallest_bucket_gives_one_call_and_none_is_no_limit() {
    assert_eq!(Rate::new(0, Duration::from_secs(1)), None);
    let rate = Rate::new(1, Duration::ZERO).unwrap();
    let full_at = rate.take(0, SECOND).unwrap();
    assert_eq!(rate.take(full_at, SECOND), Err(Duration::from_secs(1)));
    assert!(rate.take(full_at, 2 * SECOND).is_ok());
    assert!(Rate::new(u32::MAX, Duration::MAX).unwrap().take(u64::MAX, 0).is_err());
}

#[test]
fn buckets_are_of_the_whole_key() {
    let keys = [
        bucket(&[b"a", b"b:c"]),
        bucket(&[b"a:b", b"c"]),
        bucket(&[b"a", b"b", b"c"]),
        bucket(&[b"a:b:c"]),
        Bucket::new(RateLimit::Caller, rate(10, 2), &[b"a", b"b:c"]),
    ];
    let buckets = LocalBuckets::new(100);
    for key in &keys {
        for _ in 0..20 {
            buckets.take(SECOND, &[*key]).unwrap();
        }
        assert_eq!(buckets.take(SECOND, &[*key]).unwrap_err().limit, key.limit);
    }
}

#[test]
fn of_several_buckets_all_give_or_none() {
    let buckets = LocalBuckets::new(100);
    let (small, large) = (bucket(&[b"small"]), Bucket::new(RateLimit::Tenant, rate(100, 2), &[b"large"]));
    for _ in 0..20 {
        buckets.take(SECOND, &[large, small]).unwrap();
    }
    for _ in 0..1_000 {
        assert_eq!(buckets.take(SECOND, &[large, small]).unwrap_err().limit, RateLimit::User);
    }
    // The refused calls took nothing of the larger one.
    for _ in 0..180 {
        buckets.take(SECOND, &[large]).unwrap();
    }
    assert!(buckets.take(SECOND, &[large]).is_err());
    assert!(buckets.take(2 * SECOND, &[large]).is_ok());
}

#[test]
fn memory_is_bounded_and_full_buckets_take_none() {
    let buckets = LocalBuckets::new(1_000);
    for n in 0..50_000_u32 {
        buckets.take(SECOND, &[bucket(&[&n.to_be_bytes()])]).unwrap();
        assert!(buckets.remembered() <= 1_000);
    }
    buckets.take(100 * SECOND, &[bucket(&[b"later"])]).unwrap();
    for n in 0..1_000_u32 {
        buckets.take(100 * SECOND, &[bucket(&[&n.to_be_bytes()])]).unwrap();
    }
    assert!(buckets.remembered() <= 1_000);
}

#[test]
fn clients_are_addresses_of_four_and_networks_of_six() {
    let network = |text: &str| client_network(text.parse().unwrap()).to_string();
    assert_eq!(network("192.0.2.7"), "192.0.2.7");
    assert_eq!(network("::ffff:192.0.2.7"), "192.0.2.7");
    assert_eq!(network("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
    assert_eq!(network("2001:db8:1:2::1"), "2001:db8:1:2::");
}

#[test]
fn networks_contain_their_addresses() {
    let inside =
        |network: &str, address: &str| network.parse::<Network>().unwrap().contains(address.parse().unwrap());
    assert!(inside("10.0.0.0/8", "10.255.0.1") && !inside("10.0.0.0/8", "11.0.0.1"));
    assert!(inside("10.0.0.0/8", "::ffff:10.1.2.3") && !inside("10.0.0.0/8", "::a00:1"));
    assert!(inside("2001:db8::/32", "2001:db8:ffff::1") && !inside("2001:db8::/32", "2001:db9::1"));
    assert!(inside("0.0.0.0/0", "1.2.3.4") && !inside("0.0.0.0/0", "::1"));
    assert!(inside("127.0.0.1", "127.0.0.1") && !inside("127.0.0.1", "127.0.0.2"));
    assert!(inside("::1", "::1"));
    for bad in
        ["", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/+8", "10.0.0.1/8", "::1/129", "10.0.0", "x/8", "::/0/0"]
    {
        assert!(bad.parse::<Network>().is_err(), "{bad}");
    }
}
