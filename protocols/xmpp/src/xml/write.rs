//! Elements as text.

use quick_xml::escape::{escape, partial_escape};

use super::{Element, Node, ns};

/// Appends an element. `default` is the namespace that needs no saying where it stands.
pub fn write(element: &Element, default: &str, out: &mut String) {
    out.push('<');
    out.push_str(&element.name);
    if element.ns != default {
        out.push_str(" xmlns='");
        out.push_str(&escape(&*element.ns));
        out.push('\'');
    }
    let mut prefixes = 0;
    for attribute in &element.attributes {
        out.push(' ');
        if attribute.ns == ns::XML {
            out.push_str("xml:");
        } else if !attribute.ns.is_empty() {
            // Foreign attributes are rare, so each brings its own declaration.
            let prefix = format!("a{prefixes}");
            prefixes += 1;
            out.push_str(&format!("xmlns:{prefix}='{}' {prefix}:", escape(&*attribute.ns)));
        }
        out.push_str(&attribute.name);
        out.push_str("='");
        push_attribute(&attribute.value, out);
        out.push('\'');
    }
    if element.nodes.is_empty() {
        out.push_str("/>");
        return;
    }
    out.push('>');
    write_children(&element.nodes, &element.ns, out);
    out.push_str("</");
    out.push_str(&element.name);
    out.push('>');
}

/// Appends what is in an element of namespace `default`.
pub fn write_children(nodes: &[Node], default: &str, out: &mut String) {
    for node in nodes {
        match node {
            Node::Element(child) => write(child, default, out),
            Node::Text(text) => push_text(text, out),
        }
    }
}

/// A carriage return would be read as the end of a line.
fn push_text(text: &str, out: &mut String) {
    for (at, part) in text.split('\r').enumerate() {
        if at > 0 {
            out.push_str("&#xD;");
        }
        out.push_str(&partial_escape(part));
    }
}

/// White space in an attribute would be read as spaces.
fn push_attribute(value: &str, out: &mut String) {
    if !value.contains(['\r', '\n', '\t']) {
        out.push_str(&escape(value));
        return;
    }
    for c in value.chars() {
        match c {
            '\r' => out.push_str("&#xD;"),
            '\n' => out.push_str("&#xA;"),
            '\t' => out.push_str("&#x9;"),
            _ => out.push_str(&escape(c.encode_utf8(&mut [0; 4]) as &str)),
        }
    }
}
