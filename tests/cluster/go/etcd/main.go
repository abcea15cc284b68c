// Command etcd is the etcd server. It has a module of its own because the
// server's can't be installed by version: it replaces its siblings.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() {
	etcdmain.Main(os.Args)
}
