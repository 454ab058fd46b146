//! The commands of `deploy/UPGRADING.md`, as its readers would type them.

use std::path::Path;

/// One command of the page: variables that are set for it, the program, and its arguments.
#[derive(Debug, PartialEq, Eq)]
pub struct PageCommand {
    pub settings: Vec<(String, String)>,
    pub program: String,
    pub args: Vec<String>,
}

/// The commands in the blocks below a heading, with the variables of the page replaced by their values.
pub fn commands(heading: &str, variables: &[(&str, &str)]) -> Vec<PageCommand> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/UPGRADING.md");
    let page = std::fs::read_to_string(path).unwrap();
    let (_, below) = page
        .split_once(&format!("\n## {heading}\n"))
        .unwrap_or_else(|| panic!("the page has no heading {heading:?}"));
    let section = below.split("\n## ").next().unwrap();
    let blocks = section.split("```").skip(1).step_by(2);
    let lines = blocks.flat_map(|block| block.strip_prefix("sh\n").unwrap().lines());
    lines.map(|line| command(line, variables)).collect()
}

fn command(line: &str, variables: &[(&str, &str)]) -> PageCommand {
    let mut words = line.split_whitespace().map(|word| {
        let word = word.replace('"', "");
        variables.iter().fold(word, |word, (name, value)| {
            word.replace(&format!("${{{name}}}"), value)
                .replace(&format!("${name}"), value)
        })
    });
    let mut settings = Vec::new();
    let program = loop {
        let word = words.next().unwrap();
        match word.split_once('=') {
            Some((name, value)) => settings.push((name.to_owned(), value.to_owned())),
            None => break word,
        }
    };
    PageCommand {
        settings,
        program,
        args: words.collect(),
    }
}

#[test]
fn variables_and_settings_are_read() {
    let found = command(
        r#"A="${P}x" tacho read "$DIR" --prefix """#,
        &[("P", "p."), ("DIR", "/d")],
    );
    let expected = PageCommand {
        settings: vec![("A".to_owned(), "p.x".to_owned())],
        program: "tacho".to_owned(),
        args: ["read", "/d", "--prefix", ""].map(str::to_owned).to_vec(),
    };
    assert_eq!(found, expected);
}
