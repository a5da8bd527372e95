//! The processes of a training, connected.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, ToSocketAddrs as _, UdpSocket},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{RecvTimeoutError, channel},
    },
    thread,
    time::{Duration, Instant},
};

use super::{
    Collective, CollectiveError, Environment, StoreHost,
    ffi::{Group, Meeting, Real},
};

/// Time that the others have to report their failure before they count as dead.
const PATIENCE: Duration = Duration::from_secs(3);
/// What a wait may take beyond its own limit before it is given up from outside.
const GRACE: Duration = Duration::from_secs(5);
/// Pause between two looks at the others' words.
const PAUSE: Duration = Duration::from_millis(20);

/// An address that is never this machine's, nor anybody's (RFC 5737).
const ELSEWHERE: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 9));

/// Processes connected over libtorch's c10d: a `TCPStore` where they meet, and Gloo between them.
///
/// Every wait ends: with the result, with the failure of a peer as soon as its connection breaks, or at
/// [`Environment::timeout`]. After a failure the group is closed, so that the others fail too.
#[derive(Debug)]
pub struct ProcessGroup {
    rank: usize,
    size: usize,
    store: StoreHost,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    group: Arc<Group>,
    /// Exchanges begun.
    begun: u64,
    /// The exchange that failed.
    failed: Option<u64>,
}

impl ProcessGroup {
    /// Waits until all processes that `environment` speaks of have met, and connects with each.
    pub fn connect(environment: &Environment) -> Result<Self, CollectiveError> {
        let Environment { rank, size, host, port, timeout, store } = environment;
        let prefix = match store {
            StoreHost::RankZero => "lathe".to_owned(),
            StoreHost::Launcher { attempt } => format!("lathe/attempt_{attempt}"),
        };
        let meeting = Meeting {
            host: host.clone(),
            port: *port,
            rank: *rank,
            size: *size,
            timeout: *timeout,
            serve: *rank == 0 && *store == StoreHost::RankZero,
            prefix,
            address: own_address(environment).map(|address| address.to_string()),
        };
        tracing::info!(rank, size, host, port, "waiting for the other processes");
        let began = Instant::now();
        let made = bounded(*timeout + GRACE, move || Group::create(&meeting));
        let made =
            made.unwrap_or_else(|| Err(format!("no answer in {:.0} s", began.elapsed().as_secs_f64())));
        match made {
            Ok(group) => {
                let state = State { group: Arc::new(group), begun: 0, failed: None };
                Ok(Self { rank: *rank, size: *size, store: store.clone(), state: Mutex::new(state) })
            }
            Err(reason) => Err(CollectiveError::Connect {
                rank: *rank,
                size: *size,
                host: host.clone(),
                port: *port,
                hint: hint(&reason, environment),
                reason,
            }),
        }
    }

    /// Returns when all processes are here.
    pub fn barrier(&self) -> Result<(), CollectiveError> {
        self.exchange(|| "wait for all".to_owned(), Group::barrier)
    }

    /// Runs an exchange; the first that fails closes the group.
    fn exchange(
        &self,
        what: impl Fn() -> String,
        run: impl FnOnce(&Group) -> Result<(), String>,
    ) -> Result<(), CollectiveError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (rank, size) = (self.rank, self.size);
        if let Some(number) = state.failed {
            return Err(CollectiveError::Lost { what: what(), rank, number });
        }
        state.begun += 1;
        let number = state.begun;
        let began = Instant::now();
        let Err(reason) = run(&state.group) else { return Ok(()) };
        let reason = without_place(&reason).to_owned();
        let waited = began.elapsed();
        state.failed = Some(number);
        let group = Arc::clone(&state.group);
        // In a thread: a store whose host is frozen never answers.
        let silent = bounded(PATIENCE + GRACE, move || silent(&group, rank, size)).flatten();
        let silent = silent.or_else(|| (self.store == StoreHost::RankZero).then(|| vec![0]));
        Err(CollectiveError::Exchange { what: what(), rank, size, number, waited, silent, reason })
    }

    fn sum_of<R: Real>(&self, values: &mut [R]) -> Result<(), CollectiveError> {
        let count = values.len();
        self.exchange(|| format!("sum {}", values_of(count)), |group| group.sum(values))
    }
}

impl Collective for ProcessGroup {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn sum(&self, values: &mut [f64]) -> Result<(), CollectiveError> {
        self.sum_of(values)
    }

    fn sum_f32(&self, values: &mut [f32]) -> Result<(), CollectiveError> {
        self.sum_of(values)
    }

    fn broadcast(&self, values: &mut [f64]) -> Result<(), CollectiveError> {
        let count = values.len();
        self.exchange(|| format!("send {} of rank 0", values_of(count)), |group| group.broadcast(values))
    }
}

fn values_of(count: usize) -> String {
    if count == 1 { "1 value".to_owned() } else { format!("{count} values") }
}

/// What `work` returns, unless it takes longer than `limit`; then it is left behind in its thread.
fn bounded<T: Send + 'static>(limit: Duration, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (sender, receiver) = channel();
    let worker = thread::spawn(move || {
        // Nobody listens any more if it took too long.
        let _ = sender.send(work());
    });
    match receiver.recv_timeout(limit) {
        Ok(result) => {
            let _ = worker.join();
            Some(result)
        }
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => None,
    }
}

/// Closes the connections, so that who waits for this process fails as well, and sees who reports
/// that. The ranks that don't are dead, or stuck elsewhere; `None` if the store does not answer.
fn silent(group: &Group, rank: usize, size: usize) -> Option<Vec<usize>> {
    let word = |rank: usize| format!("failed/{rank}");
    group.disconnect().ok()?;
    group.note(&word(rank)).ok()?;
    // Written is not yet delivered: what was noted must be there.
    group.noted(&word(rank)).ok().filter(|&noted| noted)?;
    let deadline = Instant::now() + PATIENCE;
    let mut silent: Vec<usize> = (0..size).filter(|&other| other != rank).collect();
    while !silent.is_empty() && Instant::now() < deadline {
        for index in (0..silent.len()).rev() {
            match group.noted(&word(silent[index])) {
                Ok(true) => drop(silent.remove(index)),
                Ok(false) => {}
                // Rank 0 has waited long enough, and ended.
                Err(_) => return Some(silent),
            }
        }
        thread::sleep(PAUSE);
    }
    Some(silent)
}

/// Own address on the network of the others: that of the way to the meeting place, as the name of a host
/// often leads to an address that only itself can reach. Rank 0 may know the meeting place, itself, by
/// such an address; then that of its way out. `None` leaves the choice to libtorch.
fn own_address(environment: &Environment) -> Option<IpAddr> {
    if std::env::var_os("GLOO_SOCKET_IFNAME").is_some_and(|names| !names.is_empty()) {
        return None;
    }
    let meeting = (environment.host.as_str(), environment.port).to_socket_addrs().ok()?.next()?;
    let address = address_towards(meeting)?;
    if environment.rank == 0 && address.is_loopback() { address_towards(ELSEWHERE) } else { Some(address) }
}

/// The address that what is sent to `target` comes from.
fn address_towards(target: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr =
        if target.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    // Only chooses a route: nothing is sent.
    socket.connect(target).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// Gloo begins its words with the line of its source, in brackets.
fn without_place(reason: &str) -> &str {
    let place = |inside: &str| inside.contains(".cc:") && !inside.contains(char::is_whitespace);
    let rest = reason.strip_prefix('[').and_then(|rest| rest.split_once("] "));
    rest.filter(|(inside, _)| place(inside)).map_or(reason, |(_, rest)| rest)
}

/// What to do about a meeting that failed.
fn hint(reason: &str, environment: &Environment) -> &'static str {
    let serves = environment.rank == 0 && environment.store == StoreHost::RankZero;
    if reason.contains("EADDRINUSE") {
        "another program listens there; give all processes another MASTER_PORT"
    } else if (environment.host.as_str(), environment.port).to_socket_addrs().is_err() {
        "no such host: MASTER_ADDR must be a name or address of the machine of rank 0"
    } else if serves && reason.contains("socket") {
        "MASTER_ADDR must be the machine of rank 0, this one, and lead to it from here too"
    } else if serves {
        "are all other processes started, with the same MASTER_ADDR, MASTER_PORT and WORLD_SIZE?"
    } else {
        "is rank 0 started, and are MASTER_ADDR and MASTER_PORT the same in all processes?"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_in_gloos_source_is_left_out() {
        assert_eq!(
            without_place("[/a/b/pair.cc:547] Connection closed by peer [::1]:2"),
            "Connection closed by peer [::1]:2"
        );
        for plain in ["Timed out", "[1] of 2", "[a b.cc:1] c", "[/a.cc:2]"] {
            assert_eq!(without_place(plain), plain);
        }
    }

    #[test]
    fn the_way_to_this_machine_starts_here() {
        let here = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        assert_eq!(address_towards(here), Some(Ipv4Addr::LOCALHOST.into()));
        assert!(address_towards(ELSEWHERE).is_none_or(|address| !address.is_loopback()));
    }
}
