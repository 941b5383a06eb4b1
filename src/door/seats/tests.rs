//! Who gets a seat, who gives one up, and when.

use super::*;

/// All that the party may have beside what others have.
fn fill(seats: &Arc<Seats>, party: Party) -> Vec<Place> {
    let mut places = Vec::new();
    while seats.hall().has_room_for(party, seats.capacity) {
        let (place, in_place_of) = seats.take(party).expect("a seat");
        assert!(!in_place_of);
        places.push(place);
    }
    places
}

fn order(place: &Place) -> Order {
    Order::of(place.seat.order.load(Ordering::Relaxed))
}

#[test]
fn there_are_seats_for_what_the_process_may_open() {
    for (files, seats) in [(0, 1), (64, 1), (256, 144), (1024, 720), (20_000, 4096), (usize::MAX, 4096)] {
        assert_eq!(capacity(files), seats, "{files}");
    }
}

#[test]
fn one_party_never_takes_what_the_next_one_needs() {
    let seats = Seats::new(900);
    let [one, two, three] = [Party::Uid(1), Party::Tcp, Party::Uid(2)].map(|party| fill(&seats, party));
    assert_eq!((one.len(), two.len(), three.len()), (600, 200, 67));
    let mut more = Vec::new();
    for _ in 0..1000 {
        let (place, in_place_of) = seats.take(Party::Uid(1)).expect("a seat");
        assert!(in_place_of);
        more.push(place);
    }
    assert_eq!(seats.hall().count(), 867);
    assert!(two.iter().chain(&three).all(|place| order(place) == Order::Stay), "nobody else's");
    drop((one, two, three, more));
    assert!(seats.hall().parties.is_empty() && seats.hall().count() == 0);
}

#[test]
fn strangers_have_few_seats() {
    let seats = Seats::new(900);
    let strangers = fill(&seats, Party::Stranger);
    assert_eq!(strangers.len(), STRANGERS);
    assert!(
        matches!(seats.take(Party::Stranger), Some((_, true))),
        "the next one takes the place of the first"
    );
    assert_eq!(order(&strangers[0]), Order::Finish);
}

#[test]
fn who_never_asked_goes_before_who_is_idle_longest_and_who_is_busy_stays() {
    let seats = Seats::new(9);
    let places = fill(&seats, Party::Tcp);
    assert_eq!(places.len(), 6);
    let goes = |wanted: Option<usize>| {
        let (place, _) = seats.take(Party::Tcp)?;
        // It asks at once, and goes on asking.
        place.begin();
        let gone: Vec<_> = (0..places.len()).filter(|&n| order(&places[n]) == Order::Finish).collect();
        assert_eq!(gone.last().copied().is_some(), wanted.is_some());
        assert!(wanted.is_none_or(|wanted| gone.contains(&wanted)), "{gone:?} without {wanted:?}");
        Some(place)
    };
    for busy in [0, 3] {
        places[busy].begin();
    }
    places[3].end();
    places[1].begin();
    places[1].end();
    let mut new = Vec::new();
    for wanted in [2, 4, 5, 3, 1] {
        new.push(goes(Some(wanted)).expect("a seat"));
    }
    assert!(seats.take(Party::Tcp).is_none(), "all are busy");
    assert!(!seats.make_room(), "all are busy");
    new[0].end();
    assert!(!seats.make_room(), "it was busy just now");
    for _ in 0..=QUIET {
        seats.look();
    }
    assert!(seats.make_room() && order(&new[0]) == Order::Finish);
}

#[test]
fn each_kind_of_waiting_has_its_end() {
    let seats = Seats::new(90);
    let place = || seats.take(Party::Tcp).expect("a seat").0;
    let (idle, served, slow, unread, busy) = (place(), place(), place(), place(), place());
    served.begin();
    served.end();
    slow.seat.hear();
    unread.begin();
    unread.end();
    unread.seat.set_stuck(true);
    busy.begin();
    let mut ends = BTreeMap::new();
    for look in 1..=100 {
        // More bytes of the same head are no progress.
        slow.seat.hear();
        for (name, place) in
            [("idle", &idle), ("served", &served), ("slow", &slow), ("unread", &unread), ("busy", &busy)]
        {
            if order(place) == Order::Leave {
                ends.entry(name).or_insert(look - 1);
            }
        }
        seats.look();
    }
    let expected = [("idle", IDLE), ("served", IDLE + 1), ("slow", HEAD + 1), ("unread", ANSWER + 1)];
    assert_eq!(ends, expected.into_iter().collect());
    assert_eq!(order(&busy), Order::Stay);
}

#[tokio::test]
async fn to_park_is_told_once_and_to_go_for_good() {
    let seat = Seat::default();
    seat.tell(Order::Park);
    assert_eq!(seat.told().await, Order::Park);
    seat.tell(Order::Leave);
    seat.tell(Order::Finish);
    assert_eq!((seat.told().await, seat.told().await), (Order::Leave, Order::Leave));
}

#[test]
fn bodies_of_one_party_are_counted() {
    let seats = Seats::new(90);
    let (one, _) = seats.take(Party::Uid(1)).expect("a seat");
    let (two, _) = seats.take(Party::Uid(2)).expect("a seat");
    let bodies: Vec<_> = std::iter::from_fn(|| one.body()).collect();
    assert_eq!(bodies.len(), BODIES);
    assert!(two.body().is_some());
    drop(bodies);
    assert!(one.body().is_some());
}
