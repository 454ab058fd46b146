use super::*;

/// A made-up token in two parts, so that no scanner takes this file for a leak.
fn token() -> String {
    format!("gh{}_{}", "p", "a8Kd93hFq0Zx7Lw2Nb5Vt6Yc1Me4Rj8Su3Pg")
}

fn scrubbed(text: &str) -> String {
    Scrubber::shared()
        .scrub(text)
        .map_or_else(|| text.to_owned(), |(text, _)| text)
}

#[test]
fn a_secret_goes_and_the_text_around_it_stays() {
    let text = format!("clone https://{}@host/é.git; echo done", token());
    assert_eq!(
        scrubbed(&text),
        "clone https://[scrubbed:github-pat]@host/é.git; echo done"
    );
    assert_eq!(
        Scrubber::shared().scrub("git status && cargo test --workspace"),
        None
    );
    let (_, rules) = Scrubber::shared().scrub(&format!("{0} {0}", token())).unwrap();
    assert_eq!(rules, ["github-pat"; 2]);
}

#[test]
fn escapes_hide_nothing() {
    let value = "Zf3D0LXCM3EIMbgJpUNnkRtOfOueHznB";
    for text in [
        format!("{{\"cmd\":\"export API_TOKEN=\\\"{value}\\\"; run\"}}"),
        format!(
            "{{\"cmd\":\"bash -c \\\"echo \\\\\\\"client_secret\\\\\\\": \\\\\\\"{value}\\\\\\\"\\\"\"}}"
        ),
        format!("{{\"text\":\"a\\nAPI_TOKEN={value}\\nb\"}}"),
    ] {
        let after = scrubbed(&text);
        assert!(
            !after.contains(value) && after.contains("[scrubbed:generic-api-key]"),
            "{after}"
        );
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&after)
                .map(|_| ())
                .map_err(|error| error.to_string()),
            Ok(()),
            "{after}"
        );
    }
    assert!(unescaped(b"no escape").is_none() && unescaped(b"\\d \\").is_none());
    let view = unescaped(b"a\\\\\"b\\/c\\x").unwrap();
    assert_eq!(
        (view.bytes.as_slice(), view.at.as_slice()),
        (&b"a\"b/c\\x"[..], &[0, 3, 4, 6, 7, 8, 9][..])
    );
}

#[test]
fn the_word_at_a_cut_goes_and_so_does_a_key_without_its_end() {
    let half = &token()[..20];
    let text = format!("some words {half}\n{CUT_MARKER}");
    assert_eq!(
        scrubbed(&text),
        format!("some words [scrubbed:cut]\n{CUT_MARKER}")
    );
    assert_eq!(scrubbed(&scrubbed(&text)), scrubbed(&text));
    let body = "MIIEpAIBAAKCAQEA7bq98Jx2\n".repeat(8);
    for kind in ["RSA ", "", "OPENSSH "] {
        let text = format!("-----BEGIN {kind}PRIVATE {}-----\n{body}", "KEY");
        assert_eq!(
            scrubbed(&format!("before\n{text}")),
            "before\n[scrubbed:private-key-cut]",
            "{kind}"
        );
    }
}

#[test]
fn a_mask_has_the_length_of_what_it_hides() {
    let mut message = Vec::new();
    crate::prepare::wire::put_len(
        &mut message,
        6,
        &crate::prepare::wire::text_attribute("note", &format!("key {}", token())),
    );
    // The tag of the next field is the digit 2, which no rule takes for the end of a token.
    crate::prepare::wire::put_len(&mut message, 6, &crate::prepare::wire::text_attribute("k", "v"));
    let damaged = [&message[..], &[0xff, 0xff, 0x00], token().as_bytes()].concat();
    for bytes in [&message, &damaged] {
        let masked = Scrubber::shared().mask(bytes);
        assert_eq!(masked.bytes.len(), bytes.len());
        assert!(
            !masked
                .bytes
                .windows(20)
                .any(|window| token().as_bytes().starts_with(window))
        );
        let changed = masked
            .bytes
            .iter()
            .zip(bytes.iter())
            .filter(|(after, before)| after != before)
            .count();
        assert_eq!(changed, masked.found as usize * token().len());
    }
    assert_eq!(
        Scrubber::shared().mask(&[0, 255, 7]),
        Masked {
            bytes: vec![0, 255, 7],
            found: 0
        }
    );
    let bare = Scrubber::shared()
        .scrub_bytes(&[&[255, 254][..], token().as_bytes()].concat())
        .unwrap();
    assert_eq!(
        (bare.0, bare.1),
        ([&[255, 254][..], &[b'*'; 40]].concat(), vec!["github-pat"])
    );
}
