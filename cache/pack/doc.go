// Package pack is the format of content in the object store: a record holds one
// chunk and says what it is, a pack is records behind each other with an index
// at its end. docs/format/objects.md has the pictures.
//
// A pack can be read three ways: one chunk of it by one ranged read, when its
// place is known ([Open]); all of it without any metadata, by its index ([Load]);
// and any run of records in it without either ([Records]).
package pack
