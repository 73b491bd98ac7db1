//! The keys: found, ready in the kernel's queue, out, and back.

use super::{
    Heard, MintCounts, MintError,
    registry::{COOKIE_LIFE, Created, Registry},
    search::{Search, token_of},
};
use crate::{bpf::MintTables, clock, config::AgentToken, config::TokenSecret};
use lb_common::{ids::Token, mint::Key, stateless::Mark};
use std::{
    collections::VecDeque,
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};
use time::UtcDateTime;
use tracing::{info, warn};

/// How often the kernel's table of keys that are out is read, at least; and of the time, the part that it may take.
const READ_OUT: Duration = Duration::from_secs(1);
const READ_OUT_SHARE: u32 = 20;
/// How often the secret is looked at.
const SECRET: Duration = Duration::from_secs(1);
/// Keys that were given out in vain and may be once more. They are for when the search does not keep up: who asked for them
/// and went away knows them.
const SPARE_MAX: usize = 1 << 16;

/// New keys that must be there before those of an epoch that has been are taken back. They are good as long as balancers
/// read it, and without any there would be no MPTCP.
const ENOUGH: usize = 256;

/// All keys, whoever has them.
pub(super) struct Stock {
    token: AgentToken,
    secret: TokenSecret,
    /// What tells the file from a later one.
    file: Option<FileMark>,
    mark: Option<Mark>,
    search: Option<Search>,
    /// What the keys bear that the kernel still has of before.
    old: Option<Mark>,
    /// Keys that were found and are not ready.
    next: VecDeque<Key>,
    spare: VecDeque<Key>,
    registry: Registry,
    /// Whether all that lives was told once: before that no token is known to be free.
    knows_live: bool,
    /// When events were lost last, by the kernel's clock.
    lost: Duration,
    read_out: Option<Duration>,
    looked_at_secret: Duration,
    counts: Arc<MintCounts>,
}

type FileMark = (u64, u64, i64, i64);

impl Stock {
    /// Every `now` is the kernel's monotonic clock; only epochs begin by the clock of the day.
    pub(super) fn new(token: &AgentToken, counts: Arc<MintCounts>, now: Duration) -> io::Result<Self> {
        let file = file_mark(&token.secret);
        let secret = TokenSecret::load(&token.secret).map_err(io::Error::other)?;
        let mut stock = Self {
            token: token.clone(),
            secret,
            file,
            mark: None,
            search: None,
            old: None,
            next: VecDeque::new(),
            spare: VecDeque::new(),
            registry: Registry::default(),
            knows_live: false,
            lost: now,
            read_out: None,
            looked_at_secret: now,
            counts,
        };
        stock.turn(UtcDateTime::now())?;
        Ok(stock)
    }

    pub(super) fn ready(&self) -> usize {
        self.registry.ready()
    }

    pub(super) fn out(&self) -> usize {
        self.registry.out()
    }

    /// Reads the secret again. One that is wrong changes nothing.
    pub(super) fn reload(&mut self) -> io::Result<()> {
        self.file = file_mark(&self.token.secret);
        match TokenSecret::load(&self.token.secret) {
            Ok(secret) if secret != self.secret => {
                info!("{} has changed", self.token.secret.display());
                self.secret = secret;
            }
            Ok(_) => {}
            Err(error) => warn!("the secret stays as it was: {error}"),
        }
        self.turn(UtcDateTime::now())
    }

    /// Searches for what is to be minted now.
    fn turn(&mut self, today: UtcDateTime) -> io::Result<()> {
        let epoch = self.secret.minted_at(today);
        let mark = epoch.map(|epoch| epoch.mark(self.token.id, self.token.bits));
        if mark == self.mark {
            return Ok(());
        }
        if let Some(mark) = &mark {
            info!("minting tokens of epoch {}", mark.epoch.number());
        } else {
            warn!("nothing is minted before the first epoch of the secret begins");
        }
        self.search = mark.clone().map(Search::start).transpose()?;
        // Where one epoch has come soon after another, the kernel's keys are still those of the first.
        self.old = self.old.take().or_else(|| self.mark.take()).filter(|old| Some(old) != mark.as_ref());
        self.mark = mark;
        self.next.clear();
        self.spare.clear();
        Ok(())
    }

    /// Whether the keys of before are to be taken back: there are others, or they must not be given out any more.
    fn is_old_over(&mut self) -> bool {
        let is_read = |old: &Mark| self.secret.epochs().iter().any(|one| one.mark(old.id, old.bits) == *old);
        if self.mark.is_none() || !self.old.as_ref().is_some_and(is_read) {
            return true;
        }
        while self.next.len() < ENOUGH
            && let Some(key) = self.found()
        {
            self.next.push_back(key);
        }
        self.next.len() >= ENOUGH
    }

    /// Takes back the keys of before.
    fn retire_old(&mut self, tables: &mut MintTables) -> Result<(), MintError> {
        while let Some(key) = tables.keys.pop()? {
            self.registry.withdraw(token_of(key));
        }
        self.old = None;
        Ok(())
    }

    /// What the kernel tells.
    pub(super) fn note(&mut self, heard: Heard, tables: &mut MintTables, now: Duration) -> Result<(), MintError> {
        match heard {
            Heard::Created(token) => self.create(token, tables)?,
            Heard::Closed(token) => self.registry.close(token, now),
            Heard::Lost => self.lost = now,
            Heard::All(live) => {
                self.knows_live = true;
                for token in self.registry.replace(live.into_iter().collect(), now) {
                    self.create(token, tables)?;
                }
                self.registry.wake(now);
            }
        }
        Ok(())
    }

    fn create(&mut self, token: Token, tables: &mut MintTables) -> Result<(), MintError> {
        let out = &tables.out;
        match self.registry.create(token, |key| out.read(key).is_ok_and(|found| found.is_some())) {
            Created::CameBack(key) => Ok(tables.out.remove(key)?),
            Created::Clash(key) => Self::take_back(key, tables),
            Created::Foreign => Ok(()),
        }
    }

    /// Takes a key back that is among those to be given out.
    fn take_back(key: Key, tables: &mut MintTables) -> Result<(), MintError> {
        let mut others = Vec::new();
        while let Some(other) = tables.keys.pop()? {
            others.push(other);
        }
        for other in others.into_iter().filter(|&other| other != key) {
            tables.keys.push(other)?;
        }
        Ok(())
    }

    /// Has as many keys ready as there is room for.
    pub(super) fn fill(&mut self, tables: &mut MintTables, now: Duration) -> Result<(), MintError> {
        if now >= self.looked_at_secret + SECRET {
            self.looked_at_secret = now;
            if file_mark(&self.token.secret) == self.file { self.turn(UtcDateTime::now())? } else { self.reload()? }
        }
        if self.read_out.is_none_or(|due| now >= due) {
            self.read_out(tables, now)?;
            let then = clock::now();
            self.read_out = Some(then + READ_OUT.max(then.saturating_sub(now) * READ_OUT_SHARE));
        }
        if !self.knows_live {
            return Ok(());
        }
        if self.old.is_some() && self.is_old_over() {
            self.retire_old(tables)?;
        }
        while self.old.is_none()
            && let Some(key) = self.free(now)
        {
            if !tables.keys.push(key)? {
                self.next.push_front(key);
                break;
            }
            self.registry.make_ready(token_of(key), key);
        }
        Ok(())
    }

    /// A key whose token nobody has.
    fn free(&mut self, now: Duration) -> Option<Key> {
        loop {
            let key = self.candidate()?;
            if self.registry.is_free(token_of(key), now) {
                return Some(key);
            }
        }
    }

    /// A key that may be made ready: what nobody has seen comes first.
    fn candidate(&mut self) -> Option<Key> {
        self.next.pop_front().or_else(|| self.found()).or_else(|| self.spare.pop_front())
    }

    fn found(&self) -> Option<Key> {
        let key = self.search.as_ref()?.next()?;
        self.counts.found.fetch_add(1, Relaxed);
        Some(key)
    }

    /// Reads which keys are out, and takes those back whose cookies have expired.
    fn read_out(&mut self, tables: &mut MintTables, now: Duration) -> Result<(), MintError> {
        let mut expired = Vec::new();
        for entry in tables.out.entries() {
            let (key, at) = entry?;
            let at = Duration::from_nanos(at);
            if self.is_expired(key, at, now) {
                expired.push((key, at));
            }
        }
        for (key, at) in expired {
            tables.out.remove(key)?;
            self.expire(key, at);
        }
        Ok(())
    }

    /// Notes that a key is out, and tells whether the kernel takes its cookie no more.
    fn is_expired(&mut self, key: Key, at: Duration, now: Duration) -> bool {
        self.registry.give_out(token_of(key), key);
        now.saturating_sub(at) > COOKIE_LIFE
    }

    /// A key that was given out at that time has not come back.
    fn expire(&mut self, key: Key, at: Duration) {
        let token = token_of(key);
        self.registry.expire(token);
        // Had it come back unheard, somebody would know the key of a connection that is no more.
        let is_sure = self.lost < at;
        let is_ours = self.mark.as_ref().is_some_and(|mark| mark.is_on(token));
        if is_sure && is_ours && self.spare.len() < SPARE_MAX {
            self.spare.push_back(key);
            self.counts.recycled.fetch_add(1, Relaxed);
        }
    }
}

/// What tells a file from one that takes its place, or its content from what is written over it.
fn file_mark(path: &Path) -> Option<FileMark> {
    let file = fs::metadata(path).ok()?;
    Some((file.ino(), file.len(), file.mtime(), file.mtime_nsec()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use lb_common::stateless::{Epoch, IdBits, TokenId};
    use std::{fs::Permissions, os::unix::fs::PermissionsExt as _, thread};
    use tempfile::TempDir;
    use time::format_description::well_known::Rfc3339;

    const ID: TokenId = TokenId(5);
    const NOW: Duration = Duration::from_hours(1);
    /// A cookie is taken in the minute that it is of and in the next one: `MAX_SYNCOOKIE_AGE` of Linux.
    const KERNEL_TAKES: Duration = Duration::from_mins(2);

    /// One whose secret has these epochs, the first of them in January, and so on.
    fn stock(epochs: &[u8]) -> (TempDir, Stock) {
        let folder = tempfile::tempdir().expect("a folder");
        let secret = folder.path().join("secret");
        write(&secret, epochs);
        let (pool, bits) = ("web".parse().expect("a name"), IdBits::for_backends(8).expect("a few"));
        let token = AgentToken { pool, secret, id: ID, bits, keys: 64 };
        let mut stock = Stock::new(&token, Arc::default(), NOW).expect("it begins");
        // Whatever day it is.
        (stock.mark, stock.search) = (None, None);
        stock.turn(day("2026-01-02")).expect("a search");
        (folder, stock)
    }

    fn write(secret: &Path, epochs: &[u8]) {
        let epoch = |number: &u8| {
            let month = number + 1;
            format!(
                "[[epoch]]\nnumber = {number}\nminted_from = 2026-{month:02}-01T00:00:00Z\nkey = \"{number:032x}\"\n"
            )
        };
        fs::write(secret, epochs.iter().map(epoch).collect::<String>()).expect("written");
        fs::set_permissions(secret, Permissions::from_mode(0o600)).expect("rights");
    }

    fn day(date: &str) -> UtcDateTime {
        UtcDateTime::parse(&format!("{date}T12:00:00Z"), &Rfc3339).expect("a day")
    }

    /// The next that is found.
    fn found(stock: &mut Stock) -> Key {
        loop {
            if let Some(key) = stock.free(NOW) {
                return key;
            }
            thread::yield_now();
        }
    }

    /// So many keys, after which no more are found.
    fn last_found<const COUNT: usize>(stock: &mut Stock) -> [Key; COUNT] {
        let keys = [(); COUNT].map(|()| found(stock));
        stock.search = None;
        keys
    }

    #[test]
    fn a_key_comes_back_once_its_cookie_has_expired_and_not_before() {
        let (_folder, mut stock) = stock(&[0]);
        let [key] = last_found(&mut stock);
        let given = NOW + Duration::from_secs(10);
        for age in (0..=KERNEL_TAKES.as_secs()).map(Duration::from_secs) {
            assert!(!stock.is_expired(key, given, given + age), "the kernel takes a cookie of {age:?}");
            assert_eq!((stock.free(given + age), stock.out()), (None, 1));
        }
        let end = given + COOKIE_LIFE;
        assert!(!stock.is_expired(key, given, end) && stock.is_expired(key, given, end + Duration::from_nanos(1)));
        stock.expire(key, given);
        assert_eq!((stock.out(), stock.counts.recycled.load(Relaxed)), (0, 1));
        assert_eq!((stock.free(end), stock.free(end)), (Some(key), None), "once");
    }

    #[test]
    fn a_key_whose_token_lives_or_lived_just_now_does_not_come_back() {
        let (_folder, mut stock) = stock(&[0]);
        let keys = last_found::<3>(&mut stock);
        let given = NOW + Duration::from_secs(10);
        let end = given + COOKIE_LIFE + Duration::from_secs(1);
        for key in keys {
            assert!(stock.is_expired(key, given, end));
            stock.expire(key, given);
        }
        // Connections have their tokens by chance.
        let [lives, ended, free] = keys;
        for key in [lives, ended] {
            stock.registry.create(token_of(key), |_| false);
        }
        stock.registry.close(token_of(ended), end);
        assert_eq!((stock.free(end), stock.free(end)), (Some(free), None));
    }

    #[test]
    fn a_key_that_may_have_come_back_unheard_or_is_of_another_epoch_is_given_up() {
        let (_folder, mut stock) = stock(&[0, 1]);
        let [unheard, heard, old] = last_found(&mut stock);
        let given = NOW + Duration::from_secs(10);
        stock.lost = given;
        stock.expire(unheard, given);
        assert_eq!(stock.free(NOW), None);
        stock.expire(heard, given + Duration::from_nanos(1));
        assert_eq!(stock.free(NOW), Some(heard));
        stock.turn(day("2026-02-02")).expect("the next epoch");
        stock.search = None;
        stock.expire(old, given + Duration::from_secs(1));
        assert_eq!((stock.free(NOW), stock.counts.recycled.load(Relaxed)), (None, 1));
    }

    #[test]
    fn wherever_the_clock_of_the_day_jumps_balancers_read_what_is_minted() {
        let (_folder, mut stock) = stock(&[1, 2, 3]);
        let codec = TokenSecret::load(&stock.token.secret).expect("the balancers' file").codec(stock.token.bits);
        for (date, epoch) in [
            ("2026-02-02", Some(1)),
            ("2026-03-02", Some(2)),
            ("2040-01-01", Some(3)),
            ("2026-03-02", Some(2)),
            // Before all of them, where epoch 0 was minted once.
            ("2026-01-02", None),
            ("2026-02-02", Some(1)),
            ("2026-04-02", Some(3)),
        ] {
            stock.turn(day(date)).expect("a search");
            assert_eq!(stock.mark.as_ref().map(|mark| mark.epoch.number()), epoch, "{date}");
            let Some(epoch) = epoch else {
                assert!(stock.free(NOW).is_none() && stock.is_old_over(), "{date}");
                continue;
            };
            let token = token_of(found(&mut stock));
            assert_eq!((codec.decode(token), Epoch::of(token).number()), (Some(ID), epoch), "{date}");
        }
    }

    #[test]
    fn keys_of_before_are_given_out_while_they_are_read_and_there_are_no_others() {
        let (_folder, mut stock) = stock(&[0, 1, 2]);
        let turn = |stock: &mut Stock, date: &str| {
            stock.turn(day(date)).expect("a search");
            stock.search = None;
        };
        turn(&mut stock, "2026-02-02");
        assert!(stock.old.is_some() && !stock.is_old_over());
        turn(&mut stock, "2026-03-02");
        assert!(stock.old.as_ref().is_some_and(|old| old.epoch == Epoch::FIRST) && !stock.is_old_over());
        stock.next.extend([[0; 8]; ENOUGH]);
        assert!(stock.is_old_over(), "there are others");

        turn(&mut stock, "2026-02-02");
        assert!(!stock.is_old_over());
        write(&stock.token.secret, &[1, 2]);
        stock.reload().expect("a good secret");
        stock.search = None;
        assert!(stock.is_old_over(), "nobody reads them any more");

        // The kernel's keys are those of an epoch that is back.
        let (_folder, mut stock) = self::stock(&[0, 1]);
        turn(&mut stock, "2026-02-02");
        turn(&mut stock, "2026-01-02");
        assert_eq!(stock.old, None);
    }
}
