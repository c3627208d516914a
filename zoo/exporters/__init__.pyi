from .hub import push as push
