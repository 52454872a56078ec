//! Which file of a crate uses which, as its source says.
//!
//! `syn` reads each file, and every path in it is followed through the crate's modules, imports and re-exports, to the
//! file that defines what it names. Left out are tests, what a macro expands to (the paths in its call are read), and
//! methods: the files that define the types of their values are named somewhere.

use proc_macro2::{TokenStream, TokenTree};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};
use syn::visit::{self, Visit};

/// Reads a source file; none where there is no such file.
pub(super) type Read<'read> = &'read dyn Fn(&Path) -> Option<String>;

/// How many imports one name may lead through.
const IMPORTS_MAX: usize = 16;

/// The modules of one crate, the root first.
pub(super) struct Modules {
    modules: Vec<Module>,
    /// The files, and the module that each one is.
    files: Vec<(PathBuf, usize)>,
}

#[derive(Default)]
struct Module {
    /// The number of its file.
    file: usize,
    parent: Option<usize>,
    children: BTreeMap<String, usize>,
    /// What it defines itself.
    items: BTreeSet<String>,
    /// What it imports, by the name that it has here.
    imports: BTreeMap<String, Vec<String>>,
    /// The modules of which it imports everything.
    globs: Vec<Vec<String>>,
    /// Every path that it names.
    paths: BTreeSet<Vec<String>>,
}

impl Modules {
    /// Reads the crate whose root is `root`.
    ///
    /// # Errors
    /// What the compiler would say too: a module without a file, a file that is no Rust.
    pub(super) fn read(root: &Path, read: Read<'_>) -> anyhow::Result<Self> {
        let mut modules = Self { modules: Vec::new(), files: Vec::new() };
        let directory = root.parent().unwrap_or(Path::new("")).to_owned();
        let text = read(root).ok_or_else(|| anyhow::anyhow!("{} cannot be read", root.display()))?;
        modules.add_file(root.to_owned(), &text, directory, None, read)?;
        Ok(modules)
    }

    /// Its files, each with those that it uses; those between which and it lie nothing but parents and children aside.
    pub(super) fn uses(&self) -> BTreeMap<&Path, BTreeSet<&Path>> {
        let mut uses: BTreeMap<&Path, BTreeSet<&Path>> =
            self.files.iter().map(|(path, _)| (path.as_path(), BTreeSet::new())).collect();
        for (number, module) in self.modules.iter().enumerate() {
            for path in module.paths.iter().chain(module.imports.values()).chain(&module.globs) {
                let Some(definer) = self.resolve(number, path, IMPORTS_MAX) else { continue };
                let (user, used) = (module.file, self.modules[definer].file);
                if user != used && !self.is_within(user, used) && !self.is_within(used, user) {
                    uses.entry(&self.files[user].0).or_default().insert(&self.files[used].0);
                }
            }
        }
        uses
    }

    /// Whether the file `inner` is a submodule of the file `outer`, at any depth.
    fn is_within(&self, inner: usize, outer: usize) -> bool {
        let mut module = Some(self.files[inner].1);
        while let Some(number) = module {
            if self.modules[number].file == outer {
                return true;
            }
            module = self.modules[number].parent;
        }
        false
    }

    /// The module that defines what `path` names in module `from`; none for other crates' and for local names.
    fn resolve(&self, from: usize, path: &[String], imports: usize) -> Option<usize> {
        let (first, rest) = path.split_first()?;
        let start = match first.as_str() {
            "crate" => 0,
            "self" => from,
            "super" => self.modules[from].parent?,
            _ => return self.resolve_in(from, path, imports),
        };
        let supers = rest.iter().take_while(|segment| *segment == "super").count();
        let mut module = start;
        for _ in 0..supers {
            module = self.modules[module].parent?;
        }
        match rest.get(supers..) {
            None | Some([]) => Some(module),
            Some(rest) => Some(self.resolve_in(module, rest, imports).unwrap_or(module)),
        }
    }

    /// As [`Self::resolve`], for a path that begins with a name in `module`.
    fn resolve_in(&self, number: usize, path: &[String], imports: usize) -> Option<usize> {
        let imports = imports.checked_sub(1)?;
        let (first, rest) = path.split_first()?;
        let module = &self.modules[number];
        if let Some(child) = module.children.get(first) {
            return if rest.is_empty() {
                Some(*child)
            } else {
                self.resolve_in(*child, rest, imports).or(Some(*child))
            };
        }
        if module.items.contains(first) {
            return Some(number);
        }
        if let Some(import) = module.imports.get(first) {
            let whole: Vec<String> = import.iter().chain(rest).cloned().collect();
            return self.resolve(number, &whole, imports);
        }
        module.globs.iter().find_map(|glob| {
            let source = self.resolve(number, glob, imports)?;
            if source == number { None } else { self.resolve_in(source, path, imports) }
        })
    }

    fn add_file(
        &mut self,
        path: PathBuf,
        text: &str,
        directory: PathBuf,
        parent: Option<usize>,
        read: Read<'_>,
    ) -> anyhow::Result<usize> {
        let syntax = syn::parse_file(text).map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))?;
        let file = self.files.len();
        self.files.push((path, self.modules.len()));
        self.add_module(file, directory, parent, &syntax.items, read)
    }

    fn add_module(
        &mut self,
        file: usize,
        directory: PathBuf,
        parent: Option<usize>,
        items: &[syn::Item],
        read: Read<'_>,
    ) -> anyhow::Result<usize> {
        let number = self.modules.len();
        self.modules.push(Module { file, parent, ..Module::default() });
        let mut reader = Reader::default();
        for item in items {
            if let syn::Item::Mod(child) = item {
                if is_test(&child.attrs) {
                    continue;
                }
                let name = child.ident.to_string();
                let inner = directory.join(&name);
                let child = match &child.content {
                    Some((_, items)) => self.add_module(file, inner, Some(number), items, read)?,
                    None => {
                        let candidates = [directory.join(format!("{name}.rs")), inner.join("mod.rs")];
                        let found = candidates.into_iter().find_map(|path| read(&path).map(|text| (path, text)));
                        let (path, text) = found.ok_or_else(|| {
                            anyhow::anyhow!("{}: module `{name}` has no file", self.files[file].0.display())
                        })?;
                        self.add_file(path, &text, inner, Some(number), read)?
                    }
                };
                self.modules[number].children.insert(name, child);
            } else {
                reader.module.items.extend(name_of(item));
                reader.visit_item(item);
            }
        }
        let Module { items, imports, globs, paths, .. } = reader.module;
        let module = &mut self.modules[number];
        (module.items, module.imports, module.globs, module.paths) = (items, imports, globs, paths);
        Ok(number)
    }
}

/// The name by which others know `item`.
#[expect(clippy::wildcard_enum_match_arm, reason = "most kinds of items have no name")]
fn name_of(item: &syn::Item) -> Option<String> {
    let ident = match item {
        syn::Item::Const(item) => &item.ident,
        syn::Item::Enum(item) => &item.ident,
        syn::Item::Fn(item) => &item.sig.ident,
        syn::Item::Macro(item) => item.ident.as_ref()?,
        syn::Item::Static(item) => &item.ident,
        syn::Item::Struct(item) => &item.ident,
        syn::Item::Trait(item) => &item.ident,
        syn::Item::Type(item) => &item.ident,
        syn::Item::Union(item) => &item.ident,
        _ => return None,
    };
    Some(ident.to_string())
}

fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.parse_args::<syn::Ident>().is_ok_and(|condition| condition == "test")
    })
}

/// Collects the imports and the paths of a module's items.
#[derive(Default)]
struct Reader {
    module: Module,
}

impl Reader {
    fn import(&mut self, before: &[String], tree: &syn::UseTree) {
        let with = |ident: &syn::Ident| before.iter().cloned().chain([ident.to_string()]).collect::<Vec<_>>();
        let mut add = |name: &syn::Ident, ident: &syn::Ident| {
            // `use a::{self}` names `a` itself.
            let path = if ident == "self" && !before.is_empty() { before.to_owned() } else { with(ident) };
            let name = if name == "self" { path.last().cloned().unwrap_or_default() } else { name.to_string() };
            self.module.imports.insert(name, path);
        };
        match tree {
            syn::UseTree::Path(tree) => self.import(&with(&tree.ident), &tree.tree),
            syn::UseTree::Name(tree) => add(&tree.ident, &tree.ident),
            syn::UseTree::Rename(tree) => add(&tree.rename, &tree.ident),
            syn::UseTree::Glob(_) => self.module.globs.push(before.to_owned()),
            syn::UseTree::Group(tree) => tree.items.iter().for_each(|tree| self.import(before, tree)),
        }
    }

    /// The paths among the tokens of a macro's call, which have no syntax yet.
    fn read_tokens(&mut self, tokens: TokenStream) {
        let mut path = Vec::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => {
                    if colons != 2 {
                        self.add_path(&mut path);
                    }
                    path.push(ident.to_string());
                    colons = 0;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                TokenTree::Group(group) => {
                    self.add_path(&mut path);
                    self.read_tokens(group.stream());
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => self.add_path(&mut path),
            }
        }
        self.add_path(&mut path);
    }

    fn add_path(&mut self, path: &mut Vec<String>) {
        if !path.is_empty() {
            self.module.paths.insert(core::mem::take(path));
        }
    }
}

impl<'syntax> Visit<'syntax> for Reader {
    #[expect(clippy::wildcard_enum_match_arm, reason = "those are the items that a test may stand beside")]
    fn visit_item(&mut self, item: &'syntax syn::Item) {
        let attributes: &[syn::Attribute] = match item {
            syn::Item::Fn(item) => &item.attrs,
            syn::Item::Impl(item) => &item.attrs,
            syn::Item::Use(item) => &item.attrs,
            _ => &[],
        };
        if !is_test(attributes) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'syntax syn::ItemUse) {
        if item.leading_colon.is_none() {
            self.import(&[], &item.tree);
        }
    }

    fn visit_path(&mut self, path: &'syntax syn::Path) {
        if path.leading_colon.is_none() {
            self.module.paths.insert(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'syntax syn::Macro) {
        self.read_tokens(call.tokens.clone());
        visit::visit_macro(self, call);
    }
}
