//go:build tools

// Package tools keeps etcd, which is built but not imported, in go.mod.
package tools

import _ "go.etcd.io/etcd/server/v3"
