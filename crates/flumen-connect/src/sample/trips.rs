//! What happened on the road: one function per kind that turns a row's number into the row.
//!
//! The shapes follow the published records: pickups by hour and day of the week, in roughly their order; a few busy zones
//! and many quiet ones; short rides in the city and long ones to the airports; cards that tip and cash that does not;
//! refunds with a minus; rows sent by dispatch without passengers, rate code, flag and surcharges; a few pickups far
//! outside the month; meters that ran for a day. Money is in cents, distance in hundredths of a mile, time in seconds.
//! Fares and surcharges are the tariff of the month, and a total is always the sum of its parts.

use super::draw::{Draw, Pick, mix, quantile};
use super::layout::CBD_FEE;
use super::{Kind, Month, Trips, ZONES_CSV};

/// One value of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cell {
    /// No value.
    Null,
    /// A whole number.
    Int(i64),
    /// A number with two decimals, times one hundred.
    Hundredths(i64),
    /// Seconds since 1970 in New York's own time.
    Time(i64),
    /// A flag.
    Flag(bool),
    /// The number of a for-hire base, written `B01234`.
    Base(u32),
}

const SECONDS_PER_DAY: i64 = 86_400;
const ZONES: usize = 265;
const NEWARK: i64 = 1;
const JFK: i64 = 132;
const LAGUARDIA: i64 = 138;

/// How busy each hour of a working day and of a weekend day is, from midnight.
const WEEKDAY_HOURS: [u64; 24] =
    [22, 14, 10, 7, 6, 8, 19, 34, 43, 44, 46, 50, 55, 57, 61, 65, 64, 68, 69, 56, 44, 38, 35, 29];
const WEEKEND_HOURS: [u64; 24] =
    [52, 44, 34, 23, 14, 8, 9, 13, 20, 29, 38, 44, 49, 51, 52, 51, 49, 50, 52, 49, 44, 42, 41, 36];
/// How busy each day of the week is, from Monday, in hundredths.
const DAYS: [u64; 7] = [93, 100, 103, 107, 108, 104, 90];
/// Tenths of a mile an hour at which traffic moves, by hour.
const SPEED: [i64; 24] = [
    170, 182, 193, 202, 210, 205, 168, 134, 115, 110, 108, 106, 104, 105, 103, 104, 108, 104, 106, 115, 128, 138, 146,
    156,
];

/// The zones where most yellow trips begin, busiest first; then those of the green ones.
const BUSY_YELLOW: [u16; 56] = [
    237, 161, 236, 162, 186, 230, 48, 170, 142, 234, 79, 132, 239, 163, 141, 107, 68, 138, 164, 100, 238, 263, 231,
    229, 249, 90, 143, 140, 113, 246, 262, 43, 151, 137, 50, 144, 114, 148, 158, 233, 87, 13, 75, 211, 224, 125, 261,
    88, 166, 74, 41, 42, 24, 45, 116, 209,
];
const BUSY_GREEN: [u16; 40] = [
    74, 75, 41, 42, 7, 82, 166, 95, 97, 129, 244, 65, 130, 181, 260, 223, 33, 49, 25, 66, 61, 226, 116, 152, 52, 17,
    40, 92, 43, 80, 112, 255, 256, 179, 247, 69, 189, 24, 168, 37,
];

/// Quantiles of the length of a ride within the city, at steps of 1/32.
const MILES: [i64; 33] = [
    1, 38, 52, 62, 71, 79, 86, 92, 99, 105, 111, 117, 123, 130, 137, 145, 153, 161, 170, 180, 190, 201, 214, 229, 248,
    270, 300, 338, 395, 480, 620, 880, 2600,
];

/// What a ride cost in a month.
#[derive(Debug, Clone, Copy)]
struct Tariff {
    base: i64,
    per_mile: i64,
    per_hour: i64,
    /// A fare grows by this much at a time.
    unit: i64,
    /// Between JFK and Manhattan.
    jfk: i64,
    newark: i64,
    night: i64,
    rush: i64,
    improvement: i64,
    toll: i64,
    congestion: Congestion,
    /// At the airports; none before there was one.
    airport: Option<i64>,
    /// For driving into Manhattan's centre; none before there was one.
    cbd: Option<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Congestion {
    /// There was no such column yet.
    Unknown,
    /// The column had just begun: mostly null, else zero.
    Beginning,
    /// In force.
    Due,
}

impl Tariff {
    fn of(month: Month) -> Self {
        let raised = month >= Month::of(2023, 1);
        let congestion = match () {
            () if month >= Month::of(2019, 2) => Congestion::Due,
            () if month >= Month::of(2019, 1) => Congestion::Beginning,
            () => Congestion::Unknown,
        };
        let pick = |before, after| if raised { after } else { before };
        Self {
            base: pick(250, 300),
            per_mile: pick(250, 350),
            per_hour: pick(2_400, 3_300),
            unit: pick(50, 70),
            jfk: pick(5_200, 7_000),
            newark: pick(1_750, 2_000),
            night: pick(50, 100),
            rush: pick(100, 250),
            improvement: pick(30, 100),
            toll: if month >= Month::of(2021, 4) { 655 } else { 612 },
            congestion,
            airport: (month >= Month::of(2021, 1)).then_some(if month >= Month::of(2023, 4) { 175 } else { 125 }),
            cbd: (month >= CBD_FEE).then_some(75),
        }
    }
}

/// When pickups happen: every hour of a month with its weight, summed up.
#[derive(Debug, Clone)]
struct Rush {
    start: i64,
    /// The weight before each hour, and at the end that of all.
    before: Vec<u64>,
    rows: u64,
}

impl Rush {
    /// Fine enough that a second has many parts of its own.
    const SCALE: u64 = 10_000;

    fn new(month: Month, rows: u64) -> Self {
        let mut before = vec![0];
        let mut sum = 0;
        for day in month.first_day()..month.first_day() + month.days() {
            // 1970-01-01 was a Thursday.
            let weekday = (day + 3).rem_euclid(7) as usize;
            let hours = if weekday >= 5 { WEEKEND_HOURS } else { WEEKDAY_HOURS };
            for hour in hours {
                sum += hour * DAYS[weekday] * Self::SCALE;
                before.push(sum);
            }
        }
        Self { start: month.first_day() * SECONDS_PER_DAY, before, rows: rows.max(1) }
    }

    /// The pickup of row `row`: files are roughly in order of time, to about half a day.
    fn pickup(&self, row: u64, draw: &mut Draw) -> i64 {
        let all = self.before.last().copied().unwrap_or(1);
        let place = (u128::from(row) * u128::from(all) / u128::from(self.rows)) as u64;
        let late = ((u128::from(draw.bits()) * u128::from(all / 60 + all / self.rows)) >> 32) as u64;
        let place = (place + late) % all;
        let hour = self.before.partition_point(|before| *before <= place) - 1;
        let weight = self.before[hour + 1] - self.before[hour];
        self.start + hour as i64 * 3_600 + ((place - self.before[hour]) * 3_600 / weight) as i64
    }
}

/// Everything that is the same for all rows of a month.
#[derive(Debug, Clone)]
pub(super) struct Model {
    trips: Trips,
    key: u64,
    tariff: Tariff,
    rush: Rush,
    manhattan: Vec<bool>,
    pickups: Pick,
    dropoffs: Pick,
    passengers: Pick,
    payments: Pick,
    /// Rows that dispatch sent, per million.
    dispatched: u64,
}

impl Model {
    pub(super) fn new(trips: &Trips) -> Self {
        let busy: &[u16] = if trips.kind == Kind::Green { &BUSY_GREEN } else { &BUSY_YELLOW };
        let others = |salt| zones(busy, salt);
        let month = trips.month;
        let dispatched = if month >= Month::of(2020, 3) { 71_800 } else { 9_000 };
        Self {
            trips: *trips,
            key: mix(mix(trips.seed) ^ ((trips.kind as u64) << 56) ^ (month.first_day() as u64)),
            tariff: Tariff::of(month),
            rush: Rush::new(month, trips.rows),
            manhattan: manhattan(),
            pickups: Pick::new(others(1)),
            // Rides end in more places than they begin.
            dropoffs: Pick::new(others(2).into_iter().map(|(zone, weight)| (zone, weight + 700_000))),
            passengers: Pick::new([(0, 21), (1, 731), (2, 150), (3, 38), (4, 16), (5, 24), (6, 20)]),
            payments: Pick::new(if trips.kind == Kind::Green {
                [(1, 570), (2, 420), (3, 6), (4, 4)]
            } else {
                [(1, 720), (2, 268), (3, 8), (4, 4)]
            }),
            dispatched: if trips.kind == Kind::Green { dispatched * 2 } else { dispatched },
        }
    }

    /// Row `row`, cell by cell, in the order of [`super::layout`].
    pub(super) fn row(&self, row: u64, cells: &mut Vec<Cell>) {
        cells.clear();
        match self.trips.kind {
            Kind::Fhv => self.hired(row, cells),
            kind => {
                let ride = self.ride(row);
                if kind == Kind::Green { self.green(&ride, cells) } else { self.yellow(&ride, cells) }
            }
        }
    }

    fn pickup(&self, row: u64, draw: &mut Draw) -> (i64, usize) {
        let at = self.rush.pickup(row, draw);
        let hour = (at.rem_euclid(SECONDS_PER_DAY) / 3_600) as usize;
        if !draw.chance(150) {
            return (at, hour);
        }
        // A clock that was set wrong: years back, or days ahead.
        let days = if draw.chance(800_000) { -31 - draw.below(4_000) } else { 31 + draw.below(60) };
        (at + days * SECONDS_PER_DAY, hour)
    }

    fn ride(&self, row: u64) -> Ride {
        let draw = &mut Draw::new(self.key, row);
        let (pickup, hour) = self.pickup(row, draw);
        let dispatched = draw.chance(self.dispatched);
        let (from, to) = (self.pickups.draw(draw), self.dropoffs.draw(draw));
        let hundredths = self.distance(from, to, draw);
        let ratecode = self.ratecode(from, to, draw);
        let seconds = (hundredths * 360 / SPEED[hour] * (70 + draw.below(70)) / 100 + 40 + draw.below(140)).min(14_000);
        let stuck = draw.chance(2_000);
        let mut ride = Ride {
            vendor: if draw.chance(330_000) { 1 } else { 2 },
            pickup,
            dropoff: pickup + if stuck { SECONDS_PER_DAY - 1 - draw.below(900) } else { seconds },
            dispatched,
            forwarded: draw.chance(8_000),
            passengers: self.passengers.draw(draw),
            hundredths,
            ratecode,
            from,
            to,
            payment: if dispatched { 0 } else { self.payments.draw(draw) },
            ..Ride::default()
        };
        self.charge(&mut ride, hour, seconds, draw);
        ride
    }

    fn distance(&self, from: i64, to: i64, draw: &mut Draw) -> i64 {
        let touches = |zone| from == zone || to == zone;
        let ride = match () {
            () if from == to => quantile(&MILES, draw) / 3 + 1,
            () if touches(JFK) => 1_450 + draw.below(850),
            () if touches(NEWARK) => 1_500 + draw.below(600),
            () if touches(LAGUARDIA) => 620 + draw.below(750),
            () if self.trips.kind == Kind::Green => quantile(&MILES, draw) * 6 / 5,
            () => quantile(&MILES, draw),
        };
        if draw.chance(9_000) { 0 } else { ride }
    }

    fn ratecode(&self, from: i64, to: i64, draw: &mut Draw) -> i64 {
        let chance = draw.below(1_000_000);
        let manhattan = |zone: i64| self.manhattan.get(zone as usize) == Some(&true);
        match chance {
            _ if to == NEWARK && chance < 900_000 => 3,
            _ if (from == JFK && manhattan(to) || to == JFK && manhattan(from)) && chance < 930_000 => 2,
            0..9_000 => 5,
            9_000..9_600 => 4,
            9_600..10_050 => 99,
            10_050..10_100 => 6,
            _ => 1,
        }
    }

    /// What the ride cost.
    fn charge(&self, ride: &mut Ride, hour: usize, seconds: i64, draw: &mut Draw) {
        let tariff = &self.tariff;
        let metered = ride.hundredths * tariff.per_mile / 100 + seconds * tariff.per_hour / 3_600;
        ride.fare = match ride.ratecode {
            2 => tariff.jfk,
            5 => 500 * (2 + draw.below(18)),
            3 => tariff.base + tariff.newark + metered / tariff.unit * tariff.unit,
            _ => tariff.base + metered / tariff.unit * tariff.unit,
        };
        let workday = (ride.pickup.div_euclid(SECONDS_PER_DAY) + 3).rem_euclid(7) < 5;
        ride.extra = match hour {
            16..20 if workday => tariff.rush,
            20..24 | 0..6 => tariff.night,
            _ => 0,
        };
        ride.mta = if matches!(ride.ratecode, 3 | 5) || draw.chance(3_000) { 0 } else { 50 };
        let airport_ride = [JFK, NEWARK, LAGUARDIA].iter().any(|zone| [ride.from, ride.to].contains(zone));
        ride.tolls = if draw.chance(if airport_ride { 450_000 } else { 9_000 }) { tariff.toll } else { 0 };
        ride.improvement = if draw.chance(500) { 0 } else { tariff.improvement };
        let centre = [ride.from, ride.to].iter().any(|zone| self.manhattan.get(*zone as usize) == Some(&true));
        ride.congestion = match tariff.congestion {
            Congestion::Unknown => None,
            Congestion::Beginning => draw.chance(360_000).then_some(0),
            Congestion::Due if !centre || !draw.chance(985_000) => Some(0),
            Congestion::Due => Some(if self.trips.kind == Kind::Green { 275 } else { 250 }),
        };
        ride.airport = tariff.airport.map(|fee| if [JFK, LAGUARDIA].contains(&ride.from) { fee } else { 0 });
        ride.cbd = tariff.cbd.map(|fee| if centre && draw.chance(800_000) { fee } else { 0 });
        if ride.dispatched {
            ride.congestion = None;
            ride.airport = None;
        }
        ride.tip = self.tip(ride, draw);
        // Nobody paid, or somebody complained: often the row says how much was given back.
        if ride.payment >= 3 && draw.chance(380_000) {
            ride.negate();
        }
    }

    fn tip(&self, ride: &Ride, draw: &mut Draw) -> i64 {
        if ride.payment != 1 || draw.chance(45_000) {
            return 0;
        }
        let due = ride.parts();
        match draw.below(100) {
            // The buttons on the screen, and people who round or reckon by themselves.
            0..45 => due * 20 / 100,
            45..57 => due * 25 / 100,
            57..64 => due * 30 / 100,
            64..84 => 100 * (1 + draw.below(4)),
            _ => due * (5 + draw.below(22)) / 100,
        }
    }

    fn yellow(&self, ride: &Ride, cells: &mut Vec<Cell>) {
        cells.extend([
            Cell::Int(ride.vendor),
            Cell::Time(ride.pickup),
            Cell::Time(ride.dropoff),
            ride.unless_dispatched(Cell::Int(ride.passengers)),
            Cell::Hundredths(ride.hundredths),
            ride.unless_dispatched(Cell::Int(ride.ratecode)),
            ride.unless_dispatched(Cell::Flag(ride.forwarded)),
            Cell::Int(ride.from),
            Cell::Int(ride.to),
            Cell::Int(ride.payment),
            Cell::Hundredths(ride.fare),
            Cell::Hundredths(ride.extra),
            Cell::Hundredths(ride.mta),
            Cell::Hundredths(ride.tip),
            Cell::Hundredths(ride.tolls),
            Cell::Hundredths(ride.improvement),
            Cell::Hundredths(ride.total()),
            money(ride.congestion),
            money(ride.airport),
        ]);
        cells.extend(ride.cbd.map(Cell::Hundredths));
    }

    fn green(&self, ride: &Ride, cells: &mut Vec<Cell>) {
        // Green cabs pay no fee at the airports.
        let ride = &Ride { airport: None, ..*ride };
        let trip_type = if ride.ratecode == 5 { 2 } else { 1 };
        cells.extend([
            Cell::Int(ride.vendor),
            Cell::Time(ride.pickup),
            Cell::Time(ride.dropoff),
            ride.unless_dispatched(Cell::Flag(ride.forwarded)),
            ride.unless_dispatched(Cell::Int(ride.ratecode)),
            Cell::Int(ride.from),
            Cell::Int(ride.to),
            ride.unless_dispatched(Cell::Int(ride.passengers)),
            Cell::Hundredths(ride.hundredths),
            Cell::Hundredths(ride.fare),
            Cell::Hundredths(ride.extra),
            Cell::Hundredths(ride.mta),
            Cell::Hundredths(ride.tip),
            Cell::Hundredths(ride.tolls),
            Cell::Null,
            Cell::Hundredths(ride.improvement),
            Cell::Hundredths(ride.total()),
            ride.unless_dispatched(Cell::Int(ride.payment)),
            ride.unless_dispatched(Cell::Int(trip_type)),
            money(ride.congestion),
        ]);
        cells.extend(ride.cbd.map(Cell::Hundredths));
    }

    fn hired(&self, row: u64, cells: &mut Vec<Cell>) {
        let draw = &mut Draw::new(self.key, row);
        let (pickup, hour) = self.pickup(row, draw);
        let (from, to) = (self.pickups.draw(draw), self.dropoffs.draw(draw));
        let hundredths = self.distance(from, to, draw);
        let seconds = hundredths * 360 / SPEED[hour] * (70 + draw.below(90)) / 100 + 60 + draw.below(300);
        // A few large bases and many small ones: the square of an even draw crowds towards the first.
        let place = draw.below(900) * draw.below(900) / 900;
        let base = (place * 7 % 3_300) as u32 + 1;
        let affiliated = match draw.below(100) {
            0 => Cell::Null,
            1..86 => Cell::Base(base),
            _ => Cell::Base((draw.below(900) * 7 % 3_300) as u32 + 1),
        };
        let known =
            |zone, draw: &mut Draw, per_million| if draw.chance(per_million) { Cell::Int(zone) } else { Cell::Null };
        cells.extend([
            Cell::Base(base),
            Cell::Time(pickup),
            Cell::Time(pickup + seconds),
            known(from, draw, 660_000),
            known(to, draw, 880_000),
            Cell::Null,
            affiliated,
        ]);
    }

    /// Which of the bad rows of the file row `row` is, if it is one. They are spread evenly.
    pub(super) fn bad(&self, row: u64) -> Option<u64> {
        let Trips { rows, bad_rows, .. } = self.trips;
        if bad_rows == 0 {
            return None;
        }
        let near = (u128::from(row) * u128::from(bad_rows) / u128::from(rows)) as u64;
        (near.saturating_sub(1)..=near + 1)
            .take_while(|bad| *bad < bad_rows)
            .find(|bad| (u128::from(2 * bad + 1) * u128::from(rows) / u128::from(2 * bad_rows)) as u64 == row)
    }
}

/// One ride in a yellow or green cab.
#[derive(Debug, Clone, Copy, Default)]
struct Ride {
    vendor: i64,
    pickup: i64,
    dropoff: i64,
    dispatched: bool,
    forwarded: bool,
    passengers: i64,
    hundredths: i64,
    ratecode: i64,
    from: i64,
    to: i64,
    payment: i64,
    fare: i64,
    extra: i64,
    mta: i64,
    tip: i64,
    tolls: i64,
    improvement: i64,
    congestion: Option<i64>,
    airport: Option<i64>,
    cbd: Option<i64>,
}

impl Ride {
    /// The sum of everything but the tip.
    fn parts(&self) -> i64 {
        let surcharges = [self.congestion, self.airport, self.cbd];
        self.fare + self.extra + self.mta + self.tolls + self.improvement + surcharges.iter().flatten().sum::<i64>()
    }

    fn total(&self) -> i64 {
        self.parts() + self.tip
    }

    fn unless_dispatched(&self, cell: Cell) -> Cell {
        if self.dispatched { Cell::Null } else { cell }
    }

    fn negate(&mut self) {
        for part in [&mut self.fare, &mut self.extra, &mut self.mta, &mut self.tolls, &mut self.improvement] {
            *part = -*part;
        }
        for part in [&mut self.congestion, &mut self.airport, &mut self.cbd] {
            *part = part.map(|cents| -cents);
        }
    }
}

fn money(cents: Option<i64>) -> Cell {
    cents.map_or(Cell::Null, Cell::Hundredths)
}

/// All zones with their weights: the busy ones first, the others in an order that `salt` decides.
fn zones(busy: &[u16], salt: u64) -> Vec<(u16, u64)> {
    let mut others: Vec<u16> = (1..=ZONES as u16).filter(|zone| !busy.contains(zone)).collect();
    others.sort_by_key(|zone| mix(salt.wrapping_mul(0x9e37_79b9) + u64::from(*zone)));
    busy.iter().copied().chain(others).zip(0..).map(|(zone, rank)| (zone, weight(rank))).collect()
}

/// Close to Zipf at the top, as the records are (the busiest zone has about 4 % of the trips), and thin at the end.
fn weight(rank: u64) -> u64 {
    let zipf = 1_000_000_000 / (rank + 12);
    if rank < 60 { zipf } else { zipf * 60 * 60 * 60 / (rank * rank * rank) }
}

/// Whether each zone, by its number, lies in Manhattan.
fn manhattan() -> Vec<bool> {
    let mut zones = vec![false; ZONES + 1];
    for line in ZONES_CSV.lines().skip(1) {
        let mut fields = line.split(',');
        let number = fields.next().and_then(|number| number.parse::<usize>().ok());
        if let (Some(zone), Some("\"Manhattan\"")) = (number.and_then(|number| zones.get_mut(number)), fields.next()) {
            *zone = true;
        }
    }
    zones
}
