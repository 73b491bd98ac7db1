//! The secret of stateless tokens: what is read, what is refused, how it is written and rotated, and that nothing prints it.

use lb_common::{
    ids::Token,
    stateless::{IdBits, TokenId},
};
use lb_user::config::{TokenSecret, TokenSecretError};
use siphasher::sip::SipHasher13;
use std::{
    fmt::Write as _,
    fs::{self, Permissions},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    path::Path,
    time::Duration,
};
use tempfile::TempDir;
use time::{UtcDateTime, macros::utc_datetime};

const BEGIN: UtcDateTime = utc_datetime!(2026-01-02 03:04:05);
const TEN_MINUTES: Duration = Duration::from_mins(10);
const HOUR: Duration = Duration::from_hours(1);

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

fn secret() -> TokenSecret {
    TokenSecret::random(BEGIN).expect("random bytes")
}

/// A file with a text, for its owner alone.
fn file(folder: &TempDir, text: &str) -> std::path::PathBuf {
    let path = folder.path().join("secret");
    fs::write(&path, text).expect("written");
    fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("rights");
    path
}

/// The keys of a file, as it has them.
fn keys(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).expect("a file");
    text.lines().filter_map(|line| Some(line.strip_prefix("key = \"")?.trim_end_matches('"').to_owned())).collect()
}

/// What is in a folder, by name.
fn names(folder: &TempDir) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder.path())
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"))
        .collect();
    names.sort();
    names
}

#[test]
fn what_is_written_is_read() {
    let folder = folder();
    let path = folder.path().join("secret");
    let first = secret();
    first.create(&path).expect("written");
    assert_eq!(TokenSecret::load(&path).expect("read"), first);
    let rotated = first.rotated(BEGIN, TEN_MINUTES).expect("rotated").secret;
    rotated.replace(&path).expect("written");
    assert_eq!(TokenSecret::load(&path).expect("read"), rotated);
    assert_eq!(names(&folder), ["secret"], "nothing is left beside it");
}

#[test]
fn the_codec_of_a_file_is_that_of_another_implementation() {
    let folder = folder();
    let text =
        "[[epoch]]\nnumber = 3\nminted_from = 2026-01-02T03:04:05Z\nkey = \"000102030405060708090a0b0c0d0e0f\"\n";
    let secret = TokenSecret::load(&file(&folder, text)).expect("read");
    let bits = IdBits::for_backends(256).expect("within the limit");
    let codec = secret.codec(bits);
    let key = std::array::from_fn(|i| u8::try_from(i).expect("below 16"));
    for number in [0xc000_0000, 0xdead_beef, 0xffff_ffff_u32] {
        let wire = number.to_be_bytes();
        let expected = SipHasher13::new_with_key(&key).hash(&wire) & 0xff;
        let token = Token::from_wire(wire);
        assert_eq!(codec.decode(token).map(|id| u64::from(id.0)), Some(expected), "{number:08x}");
        let id = TokenId(u16::try_from(expected).expect("eight bits"));
        assert!(secret.epochs()[0].mark(id, bits).is_on(token));
    }
    assert_eq!(codec.decode(Token::from_wire([0x3f; 4])), None, "an epoch without a key");
}

#[test]
fn what_mints_is_the_last_epoch_that_has_begun() {
    let rotated = secret().rotated(BEGIN, TEN_MINUTES).expect("rotated").secret;
    let minted = |at: UtcDateTime| rotated.minted_at(at).map(|epoch| epoch.epoch.number());
    assert_eq!(minted(BEGIN - Duration::from_secs(1)), None, "a clock that is wrong mints nothing");
    assert_eq!(minted(BEGIN), Some(0));
    assert_eq!(minted(BEGIN + TEN_MINUTES - Duration::from_secs(1)), Some(0));
    assert_eq!(minted(BEGIN + TEN_MINUTES), Some(1));
    assert_eq!(minted(BEGIN + HOUR * 10_000), Some(1));
}

#[test]
fn a_rotation_keeps_three_epochs_and_never_takes_the_one_that_mints() {
    let mut secret = secret();
    let mut now = BEGIN;
    let mut numbers = Vec::new();
    for _ in 0..5 {
        now += HOUR;
        let rotated = secret.rotated(now, TEN_MINUTES).expect("rotated");
        assert_eq!(rotated.gone.as_ref(), (secret.epochs().len() == 3).then(|| &secret.epochs()[0]));
        secret = rotated.secret;
        numbers.push(secret.epochs().iter().map(|epoch| epoch.epoch.number()).collect::<Vec<_>>());
    }
    assert_eq!(numbers, [vec![0, 1], vec![0, 1, 2], vec![1, 2, 3], vec![2, 3, 0], vec![3, 0, 1]]);
    assert_eq!(secret.epochs().last().map(|epoch| epoch.minted_from), Some(now + TEN_MINUTES));

    let soon = secret.rotated(now, TEN_MINUTES).expect_err("the last has not begun");
    assert!(matches!(soon, TokenSecretError::NotBegun { .. }), "{soon}");
    let far = secret.rotated(now, Duration::MAX).expect_err("no calendar goes so far");
    assert!(matches!(far, TokenSecretError::TooLate), "{far}");

    let begun = self::secret();
    let two = begun.rotated(BEGIN, HOUR).expect("rotated").secret;
    let three = two.rotated(BEGIN, 2 * HOUR).expect("rotated").secret;
    let minted = three.rotated(BEGIN, 3 * HOUR).expect_err("the oldest mints");
    assert_eq!(
        minted.to_string(),
        "epoch 0 is minted until 2026-01-02T04:04:05Z, and 3 epochs are the most; rotate after that"
    );
    assert!(three.rotated(BEGIN + HOUR, 3 * HOUR).is_ok());
}

#[test]
fn a_new_secret_takes_the_place_of_nothing() {
    let folder = folder();
    let path = file(&folder, "what was there");
    let error = secret().create(&path).expect_err("it is there");
    assert!(matches!(error, TokenSecretError::Exists(_)), "{error}");
    assert_eq!(fs::read_to_string(&path).expect("a file"), "what was there");
    assert_eq!(names(&folder), ["secret"]);
}

#[test]
fn rights_and_owner_stay_and_a_link_leads_where_it_led() {
    let folder = folder();
    let path = folder.path().join("secret");
    let first = secret();
    first.create(&path).expect("written");
    assert_eq!(fs::metadata(&path).expect("a file").mode() & 0o7777, 0o600);
    fs::set_permissions(&path, Permissions::from_mode(0o400)).expect("rights");
    let owned = nix::unistd::geteuid().is_root();
    if owned {
        std::os::unix::fs::chown(&path, Some(12), Some(34)).expect("another owner");
    }
    let link = folder.path().join("link");
    symlink(&path, &link).expect("a link");
    let rotated = first.rotated(BEGIN, TEN_MINUTES).expect("rotated").secret;
    rotated.replace(&link).expect("written");
    assert!(fs::symlink_metadata(&link).expect("a link").is_symlink());
    let metadata = fs::symlink_metadata(&path).expect("a file");
    assert!(metadata.is_file());
    assert_eq!(metadata.mode() & 0o7777, 0o400);
    if owned {
        assert_eq!((metadata.uid(), metadata.gid()), (12, 34));
    }
    assert_eq!(keys(&path).len(), 2);
}

#[test]
fn a_file_that_cannot_be_written_stays() {
    let folder = folder();
    let missing = folder.path().join("no").join("secret");
    for written in [secret().create(&missing), secret().replace(&missing)] {
        let error = written.expect_err("no folder");
        assert!(error.to_string().ends_with("; nothing is changed"), "{error}");
    }
    assert_eq!(names(&folder), Vec::<String>::new());
}

#[test]
fn others_may_not_read_it() {
    let folder = folder();
    let path = folder.path().join("secret");
    secret().create(&path).expect("written");
    for mode in [0o640, 0o604, 0o620, 0o601] {
        fs::set_permissions(&path, Permissions::from_mode(mode)).expect("rights");
        let error = TokenSecret::load(&path).expect_err("others may read it").to_string();
        assert!(error.contains(&format!("has the rights {mode:04o}")), "{error}");
    }
    let relative = TokenSecret::load(Path::new("secret")).expect_err("a relative path").to_string();
    assert!(relative.contains("not an absolute path"), "{relative}");
    let missing = TokenSecret::load(Path::new("/nonexistent/secret")).expect_err("no file").to_string();
    assert!(missing.contains("weir secret new /nonexistent/secret"), "{missing}");
}

#[test]
fn what_is_out_of_form_is_refused_without_a_word_of_it() {
    const KEY: &str = "00112233445566778899aabbccddeeff";
    let epoch = |number: &str, from: &str, key: &str| {
        format!("[[epoch]]\nnumber = {number}\nminted_from = {from}\nkey = \"{key}\"\n")
    };
    let (begin, later) = ("2026-01-02T03:04:05Z", "2026-01-02T04:04:05Z");
    let first = epoch("0", begin, KEY);
    let other = KEY.replace('0', "1");
    let cases = [
        (String::new(), 1, "[[epoch]]"),
        ("epoch = []\n".to_owned(), 1, "one to three"),
        (format!("{KEY}\n"), 1, "[[epoch]]"),
        (format!("[[epoch]]\nnumber = \"{KEY}\"\n"), 2, "[[epoch]]"),
        (first.replace("key", "kye"), 4, "[[epoch]]"),
        (epoch("4", begin, KEY), 1, "0 to 3"),
        (epoch("-1", begin, KEY), 2, "[[epoch]]"),
        (epoch("0", "2026-01-02", KEY), 1, "a time such as"),
        (epoch("0", "2026-01-02T03:04:05", KEY), 1, "a time such as"),
        (epoch("0", begin, &KEY[1..]), 1, "32 hexadecimal"),
        (epoch("0", begin, &KEY.replacen("00", "+0", 1)), 1, "32 hexadecimal"),
        (format!("{first}{}", epoch("2", later, &other)), 5, "not the next"),
        (format!("{first}{}", epoch("1", begin, &other)), 5, "no later"),
        (format!("{first}{}", epoch("1", later, KEY)), 5, "the key of another"),
    ];
    let folder = folder();
    for (text, line, what) in cases {
        let error = TokenSecret::load(&file(&folder, &text)).expect_err(&text);
        let said = format!("{error} {error:?}");
        assert!(error.to_string().contains(&format!("secret:{line}: ")) && said.contains(what), "{text}{error}");
        assert!(!said.contains("3344556677"), "{error}");
    }
    let long = TokenSecret::load(&file(&folder, &"#".repeat(5000))).expect_err("too long").to_string();
    assert!(long.contains("at most 4096"), "{long}");
}

#[test]
fn nothing_prints_a_key() {
    let folder = folder();
    let path = folder.path().join("secret");
    let secret = secret().rotated(BEGIN, TEN_MINUTES).expect("rotated").secret;
    secret.create(&path).expect("written");
    let keys = keys(&path);
    assert_eq!(keys.len(), 2);
    let bits = IdBits::for_backends(2).expect("within the limit");
    let mut said = format!("{secret:?} {:?}", secret.codec(bits));
    for epoch in secret.epochs() {
        let _ = write!(said, "{epoch:?} {} {:?}", epoch.fingerprint(), epoch.mark(TokenId(1), bits));
    }
    for key in &keys {
        for part in [&key[..16], &key[16..]] {
            assert!(!said.contains(part), "{said}");
        }
    }
    let [first, second] = secret.epochs() else { panic!("two epochs") };
    assert_ne!(first.fingerprint(), second.fingerprint());
    assert_eq!(first.fingerprint(), TokenSecret::load(&path).expect("read").epochs()[0].fingerprint());
}
