//! One source file as the rules see it: tokens without tests, functions, imports.

use std::path::Path;
use std::str::FromStr;

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

/// A token and the line it stands on.
pub(crate) struct Token {
    pub(crate) text: String,
    pub(crate) line: usize,
}

/// A function outside of tests.
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) line: usize,
    pub(crate) lines: usize,
    pub(crate) arguments: usize,
}

/// What the rules need to know of a file.
pub(crate) struct Source {
    /// Below the repository, with slashes.
    pub(crate) path: String,
    pub(crate) tokens: Vec<Token>,
    pub(crate) functions: Vec<Function>,
    /// Lines before the first `#[cfg(test)]`.
    pub(crate) lines: usize,
    /// Modules that are compiled for tests only, as path prefixes without extension.
    pub(crate) test_modules: Vec<String>,
    /// What is looked at implements a trait, which decides on the arguments.
    of_trait: bool,
    pub(crate) text: String,
}

impl Source {
    pub(crate) fn parse(path: &str, text: &str) -> Result<Self, String> {
        let stream = TokenStream::from_str(text).map_err(|error| format!("{path}: {error}"))?;
        let file = syn::parse_file(text).map_err(|error| format!("{path}: {error}"))?;
        let mut source = Self {
            path: path.to_owned(),
            tokens: Vec::new(),
            functions: Vec::new(),
            lines: lines_before_tests(text),
            test_modules: Vec::new(),
            of_trait: false,
            text: text.to_owned(),
        };
        source.flatten(stream);
        source.visit_file(&file);
        Ok(source)
    }

    /// The room: the first name below `src/`.
    pub(crate) fn room(&self) -> &str {
        let rest = self.path.strip_prefix("src/").unwrap_or(&self.path);
        rest.split('/').next().unwrap_or(rest).trim_end_matches(".rs")
    }

    /// Modules between this file and the crate: `src/a/b.rs` has 2.
    fn depth(&self) -> usize {
        let inner = self.path.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod");
        inner.split('/').count()
    }

    /// Rooms named by `crate::room`, `crate::{room, ...}` and by a `super` that climbs out of the room.
    pub(crate) fn imports(&self) -> Vec<(String, usize)> {
        let mut found = Vec::new();
        let text = |at: usize| self.tokens.get(at).map_or("", |token| token.text.as_str());
        for at in 0..self.tokens.len() {
            let mut next = match text(at) {
                "crate" => at + 1,
                "super" if at < 2 || text(at - 2) != "super" => {
                    let supers = (0..)
                        .take_while(|n| text(at + n * 2) == "super" && text(at + n * 2 + 1) == "::")
                        .count();
                    if supers < self.depth() {
                        continue;
                    }
                    at + supers * 2 - 1
                }
                _ => continue,
            };
            if text(next) != "::" {
                continue;
            }
            next += 1;
            match text(next) {
                "{" => found.extend(self.group_heads(next)),
                name => found.push((name.to_owned(), self.tokens[next].line)),
            }
        }
        found
    }

    /// The first names of a use group that opens at token `open`.
    fn group_heads(&self, open: usize) -> Vec<(String, usize)> {
        let (mut depth, mut head, mut found) = (0, false, Vec::new());
        for token in &self.tokens[open..] {
            match token.text.as_str() {
                "{" => (depth, head) = (depth + 1, depth == 0),
                "}" if depth == 1 => break,
                "}" => depth -= 1,
                "," if depth == 1 => head = true,
                name if head => {
                    found.push((name.to_owned(), token.line));
                    head = false;
                }
                _ => {}
            }
        }
        found
    }

    /// Lines at which this sequence of tokens stands.
    pub(crate) fn find(&self, words: &str) -> Vec<usize> {
        let words: Vec<&str> = words.split(' ').collect();
        let same = |window: &&[Token]| window.iter().zip(&words).all(|(token, word)| token.text == *word);
        self.tokens.windows(words.len()).filter(same).map(|window| window[0].line).collect()
    }

    fn push(&mut self, text: impl Into<String>, line: usize) {
        self.tokens.push(Token { text: text.into(), line });
    }

    fn flatten(&mut self, stream: TokenStream) {
        let trees: Vec<TokenTree> = stream.into_iter().collect();
        let mut at = 0;
        while at < trees.len() {
            if is_test_attribute(&trees[at..]) {
                at = self.skip_test_item(&trees, at + 2);
                continue;
            }
            let line = trees[at].span().start().line;
            match &trees[at] {
                TokenTree::Group(group) => {
                    let (open, close) = match group.delimiter() {
                        Delimiter::Parenthesis => ("(", ")"),
                        Delimiter::Brace => ("{", "}"),
                        Delimiter::Bracket => ("[", "]"),
                        Delimiter::None => ("", ""),
                    };
                    self.push(open, line);
                    self.flatten(group.stream());
                    self.push(close, group.span_close().start().line);
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' && is_colon(trees.get(at + 1)) => {
                    self.push("::", line);
                    at += 1;
                }
                tree => self.push(tree.to_string(), line),
            }
            at += 1;
        }
    }

    /// Passes over the item behind `#[cfg(test)]` and notes a module that lives in a file of its own.
    fn skip_test_item(&mut self, trees: &[TokenTree], start: usize) -> usize {
        let mut at = start;
        while let Some(tree) = trees.get(at) {
            at += 1;
            match tree {
                TokenTree::Punct(punct) if punct.as_char() == ';' => {
                    if let [TokenTree::Ident(word), TokenTree::Ident(name), _] =
                        &trees[at.saturating_sub(3)..at]
                        && word == "mod"
                    {
                        self.test_modules.push(format!("{}/{name}", self.module_dir()));
                    }
                    break;
                }
                TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => break,
                _ => {}
            }
        }
        at
    }

    fn module_dir(&self) -> String {
        let path = Path::new(&self.path);
        let own =
            matches!(path.file_name().and_then(|name| name.to_str()), Some("mod.rs" | "lib.rs" | "main.rs"));
        let dir = if own { path.parent().unwrap_or(path).to_path_buf() } else { path.with_extension("") };
        dir.to_string_lossy().into_owned()
    }
}

fn lines_before_tests(text: &str) -> usize {
    let lines: Vec<&str> = text.lines().collect();
    let tests = lines.windows(2).position(|pair| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod "));
    tests.unwrap_or(lines.len())
}

fn is_colon(tree: Option<&TokenTree>) -> bool {
    matches!(tree, Some(TokenTree::Punct(punct)) if punct.as_char() == ':')
}

/// Exactly `#[cfg(test)]`: what stands behind it is not shipped.
fn is_test_attribute(trees: &[TokenTree]) -> bool {
    match trees {
        [TokenTree::Punct(hash), TokenTree::Group(group), ..] if hash.as_char() == '#' => {
            group.stream().to_string().replace(' ', "") == "cfg(test)"
        }
        _ => false,
    }
}

fn is_test_item(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let list = attribute.path().is_ident("cfg").then(|| attribute.meta.require_list().ok()).flatten();
        list.is_some_and(|list| list.tokens.to_string() == "test")
    })
}

impl Source {
    fn function(&mut self, signature: &syn::Signature, body: &syn::Block) {
        let (start, end) = (signature.span().start().line, body.brace_token.span.close().end().line);
        let inputs = signature.inputs.iter().filter(|input| matches!(input, syn::FnArg::Typed(_)));
        self.functions.push(Function {
            name: signature.ident.to_string(),
            line: start,
            lines: end + 1 - start,
            arguments: if self.of_trait { 0 } else { inputs.count() },
        });
    }
}

impl<'ast> Visit<'ast> for Source {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !is_test_item(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        if !is_test_item(&item.attrs) {
            self.function(&item.sig, &item.block);
            visit::visit_item_fn(self, item);
        }
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        let of_trait = std::mem::replace(&mut self.of_trait, item.trait_.is_some());
        visit::visit_item_impl(self, item);
        self.of_trait = of_trait;
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        if !is_test_item(&item.attrs) {
            self.function(&item.sig, &item.block);
            visit::visit_impl_item_fn(self, item);
        }
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(body) = &item.default {
            self.function(&item.sig, body);
        }
        visit::visit_trait_item_fn(self, item);
    }
}
