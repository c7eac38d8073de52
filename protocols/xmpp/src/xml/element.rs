//! An element with everything in it.

use std::borrow::Cow;

/// Text that is mostly one of ours.
pub type Text = Cow<'static, str>;

/// An element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    /// Its namespace; empty for none. Stanzas are in [`super::ns::CLIENT`] on every stream.
    pub ns: Text,
    /// Its name.
    pub name: Text,
    /// Its attributes.
    pub attributes: Vec<Attribute>,
    /// What is in it, in order.
    pub nodes: Vec<Node>,
}

/// An attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribute {
    /// Its namespace; empty for none.
    pub ns: Text,
    /// Its name.
    pub name: Text,
    /// Its value.
    pub value: String,
}

/// What may be in an element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// Another one.
    Element(Element),
    /// Text, never empty and never beside other text.
    Text(String),
}

impl Element {
    /// An empty element.
    pub fn new(ns: impl Into<Text>, name: impl Into<Text>) -> Self {
        Self { ns: ns.into(), name: name.into(), attributes: Vec::new(), nodes: Vec::new() }
    }

    /// The same with an attribute.
    pub fn attr(mut self, name: impl Into<Text>, value: impl Into<String>) -> Self {
        self.set(name, value);
        self
    }

    /// The same with an attribute, if there is a value.
    pub fn maybe_attr(self, name: &'static str, value: Option<impl Into<String>>) -> Self {
        match value {
            Some(value) => self.attr(name, value),
            None => self,
        }
    }

    /// The same with a child.
    pub fn child(mut self, child: Self) -> Self {
        self.nodes.push(Node::Element(child));
        self
    }

    /// The same with children.
    pub fn children(mut self, children: impl IntoIterator<Item = Self>) -> Self {
        self.nodes.extend(children.into_iter().map(Node::Element));
        self
    }

    /// The same with text.
    pub fn text(mut self, text: impl Into<String>) -> Self {
        self.push_text(text.into());
        self
    }

    /// Adds text.
    pub fn push_text(&mut self, text: String) {
        if text.is_empty() {
            return;
        }
        match self.nodes.last_mut() {
            Some(Node::Text(last)) => last.push_str(&text),
            _ => self.nodes.push(Node::Text(text)),
        }
    }

    /// Sets an attribute without a namespace.
    pub fn set(&mut self, name: impl Into<Text>, value: impl Into<String>) {
        let (name, value) = (name.into(), value.into());
        match self.attributes.iter_mut().find(|a| a.ns.is_empty() && a.name == name) {
            Some(attribute) => attribute.value = value,
            None => self.attributes.push(Attribute { ns: Text::Borrowed(""), name, value }),
        }
    }

    /// Removes an attribute without a namespace.
    pub fn unset(&mut self, name: &str) {
        self.attributes.retain(|a| !(a.ns.is_empty() && a.name == name));
    }

    /// The value of an attribute without a namespace.
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.attributes.iter().find(|a| a.ns.is_empty() && a.name == name);
        found.map(|attribute| attribute.value.as_str())
    }

    /// The value of `xml:lang`.
    pub fn lang(&self) -> Option<&str> {
        let found = self.attributes.iter().find(|a| a.ns == super::ns::XML && a.name == "lang");
        found.map(|attribute| attribute.value.as_str())
    }

    /// True when this is its name.
    pub fn is(&self, ns: &str, name: &str) -> bool {
        self.name == name && self.ns == ns
    }

    /// The children that are elements.
    pub fn elements(&self) -> impl Iterator<Item = &Self> {
        self.nodes.iter().filter_map(|node| match node {
            Node::Element(element) => Some(element),
            Node::Text(_) => None,
        })
    }

    /// The first child with this name.
    pub fn find(&self, ns: &str, name: &str) -> Option<&Self> {
        self.elements().find(|element| element.is(ns, name))
    }

    /// All text that is directly in it.
    pub fn content(&self) -> String {
        let texts = self.nodes.iter().filter_map(|node| match node {
            Node::Text(text) => Some(text.as_str()),
            Node::Element(_) => None,
        });
        texts.collect()
    }

    /// The text of the first child with this name.
    pub fn content_of(&self, ns: &str, name: &str) -> Option<String> {
        self.find(ns, name).map(Self::content)
    }
}
