use crate::diagnostic::{Diagnostic, Sources};
use crate::graph::{PlayDeclarations, reversals};
use crate::lint::rule::Check;
use crate::lint::{Level, Rule};

pub(super) static REVERSED_ORDER: Rule = Rule {
    name: "reversed-order",
    summary: "A requisite that turns the order of two other states around, although they touch the same things",
    why: "The order of the file is its meaning. A `require` takes what it names, and all that this needs, before the state; \
          whatever stands between them in the file, and touches the same things, comes after it then.",
    instead: "Put the states in the order in which they are to be done, or name what has to come first as well.",
    level: Level::Warn,
    wrong: "- file: /srv/shop/ready\n  content: ready\n  require: file:/etc/shop.conf\n\
            - user: shop\n- file: /etc/shop.conf\n  content: a\n  owner: shop\n",
    right: "- user: shop\n- file: /etc/shop.conf\n  content: a\n  owner: shop\n\
            - file: /srv/shop/ready\n  content: ready\n  require: file:/etc/shop.conf\n",
    check: Check::Host(reversed),
};

fn reversed(plays: &[PlayDeclarations], sources: &Sources, found: &mut Vec<Diagnostic>) {
    for reversal in reversals(plays, sources) {
        let ((first, first_span), (second, second_span)) = (&reversal.first, &reversal.second);
        let message = format!("`{first}` comes before `{second}`, which stands above it");
        found.push(
            Diagnostic::warning(REVERSED_ORDER.name, message)
                .at(reversal.requisite, "because of this")
                .at(*first_span, "first")
                .at(*second_span, "then this, which touches the same things")
                .help("put them in the order in which they are to be done"),
        );
    }
}
