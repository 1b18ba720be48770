//! The little of XML that answers of S3 are made of. Text in them is escaped by the store, so a name cannot end its element.

/// The text of the first element of this name, unescaped. Elements with attributes count, too.
pub(super) fn text(document: &str, name: &str) -> Option<String> {
    Some(unescape(inner(document, name)?.0))
}

/// What stands in the first element of this name, and what comes after it.
fn inner<'a>(document: &'a str, name: &str) -> Option<(&'a str, &'a str)> {
    let open = format!("<{name}");
    let mut rest = document;
    loop {
        let (_, after) = rest.split_once(open.as_str())?;
        rest = after;
        let (attributes, content) = after.split_once('>')?;
        if attributes.is_empty() || attributes.starts_with(' ') {
            return content.split_once(&format!("</{name}>"));
        }
    }
}

/// The elements with one of these names, in their order: which it is, and what stands in it.
pub(super) fn each<'a>(
    document: &'a str,
    names: [&'static str; 2],
) -> impl Iterator<Item = (&'static str, &'a str)> {
    let mut rest = document;
    std::iter::from_fn(move || {
        let begins = |name: &&str| rest.find(&format!("<{name}>"));
        let (_, name) = names.iter().filter_map(|name| Some((begins(name)?, *name))).min()?;
        let (content, after) = inner(rest, name)?;
        rest = after;
        Some((name, content))
    })
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('&') {
        out.push_str(before);
        match after.split_once(';').and_then(|(name, left)| Some((entity(name)?, left))) {
            Some((character, left)) => {
                out.push(character);
                rest = left;
            }
            None => {
                out.push('&');
                rest = after;
            }
        }
    }
    out + rest
}

fn entity(name: &str) -> Option<char> {
    Some(match name {
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "quot" => '"',
        "apos" => '\'',
        _ => {
            let number = name.strip_prefix('#')?;
            let number = match number.strip_prefix('x') {
                Some(digits) => u32::from_str_radix(digits, 16).ok()?,
                None => number.parse().ok()?,
            };
            char::from_u32(number)?
        }
    })
}

/// The text in a form that can stand in an element.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn elements_are_found_in_their_order_whatever_stands_between() {
        let page = "<?xml?><R xmlns=\"u\"><Prefix></Prefix><Version><Key>a</Key></Version><DeleteMarker><Key>b&amp;</Key>\
                    </DeleteMarker><Version><Key>c</Key></Version><VersionIdMarker>no</VersionIdMarker></R>";
        let found: Vec<_> = each(page, ["Version", "DeleteMarker"])
            .map(|(name, inner)| (name, text(inner, "Key").unwrap()))
            .collect();
        let wanted = [("Version", "a"), ("DeleteMarker", "b&"), ("Version", "c")];
        assert_eq!(found, wanted.map(|(name, key)| (name, key.to_owned())));
        assert_eq!(text(page, "Prefix").as_deref(), Some(""));
        assert_eq!(text(page, "Status"), None);
        assert!(text(page, "R").is_some_and(|inner| inner.contains("<Prefix>")));
        for cut in 0..page.len() {
            let _ = each(&page[..cut], ["Version", "DeleteMarker"]).count();
        }
    }

    #[test]
    fn what_is_no_entity_stays_as_it_is() {
        assert_eq!(
            unescape("a &amp; b &#65;&#x42; &nbsp; & &#xffffffff; &"),
            "a & b AB &nbsp; & &#xffffffff; &"
        );
    }

    proptest! {
        #[test]
        fn what_is_escaped_comes_back(text in "[a-z&<>;#]{0,20}") {
            prop_assert_eq!(unescape(&escape(&text)), text.clone());
            let element = format!("<K>{}</K>", escape(&text));
            prop_assert_eq!(super::text(&element, "K"), Some(text));
        }
    }
}
