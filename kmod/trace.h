/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Tracepoints cohost:cohost_*. Called by the tier's threads and end_io handlers, in any
 * context. Their fields are an interface: they are added to, never renamed or removed.
 * Sectors are 512 bytes on the volume (not on a device below it); dev is the volume's.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM cohost

#if !defined(CH_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define CH_TRACE_H

#include <linux/tracepoint.h>
#include <linux/types.h>

#ifndef CH_TRACE_ENUMS
#define CH_TRACE_ENUMS
/* Where a read was answered from. */
enum ch_trace_source {
	CH_TRACE_SOURCE_FAST,
	CH_TRACE_SOURCE_SLOW,
	CH_TRACE_SOURCE_BOTH,
	CH_TRACE_SOURCE_ZERO,
	CH_TRACE_SOURCE_LINE,
};

enum ch_trace_checkpoint {
	CH_TRACE_CHECKPOINT_CREATED,
	CH_TRACE_CHECKPOINT_DELETED,
	CH_TRACE_CHECKPOINT_SYNCED,
};

/* What went wrong. */
enum ch_trace_error {
	CH_TRACE_ERROR_FAST_READ,
	CH_TRACE_ERROR_FAST_WRITE,
	CH_TRACE_ERROR_FAST_FLUSH,
	CH_TRACE_ERROR_FAST_CRC,
	CH_TRACE_ERROR_SLOW_READ,
	CH_TRACE_ERROR_SLOW_WRITE,
	CH_TRACE_ERROR_SLOW_FLUSH,
	CH_TRACE_ERROR_MEMORY,
	CH_TRACE_ERROR_LINE_CRC,
};
#endif

TRACE_DEFINE_ENUM(CH_TRACE_SOURCE_FAST);
TRACE_DEFINE_ENUM(CH_TRACE_SOURCE_SLOW);
TRACE_DEFINE_ENUM(CH_TRACE_SOURCE_BOTH);
TRACE_DEFINE_ENUM(CH_TRACE_SOURCE_ZERO);
TRACE_DEFINE_ENUM(CH_TRACE_SOURCE_LINE);
TRACE_DEFINE_ENUM(CH_TRACE_CHECKPOINT_CREATED);
TRACE_DEFINE_ENUM(CH_TRACE_CHECKPOINT_DELETED);
TRACE_DEFINE_ENUM(CH_TRACE_CHECKPOINT_SYNCED);
TRACE_DEFINE_ENUM(CH_TRACE_ERROR_FAST_READ);
TRACE_DEFINE_ENUM(CH_TRACE_ERROR_FAST_WRITE);
TRACE_DEFINE_ENUM(CH_TRACE_ERROR_FAST_FLUSH);
TRACE_DEFINE_ENUM(CH_TRACE_ERROR_FAST_CRC);
TRACE_DEFINE_ENUM(CH_TRACE_ERROR_SLOW_READ);
TRACE_DEFINE_ENUM(CH_TRACE_ERROR_SLOW_WRITE);
TRACE_DEFINE_ENUM(CH_TRACE_ERROR_SLOW_FLUSH);
TRACE_DEFINE_ENUM(CH_TRACE_ERROR_MEMORY);
TRACE_DEFINE_ENUM(CH_TRACE_ERROR_LINE_CRC);

#define ch_show_source(value)                                                                      \
	__print_symbolic(value, { CH_TRACE_SOURCE_FAST, "fast" },                                  \
			 { CH_TRACE_SOURCE_SLOW, "slow" }, { CH_TRACE_SOURCE_BOTH, "both" },       \
			 { CH_TRACE_SOURCE_ZERO, "zero" }, { CH_TRACE_SOURCE_LINE, "line" })

#define ch_show_checkpoint(value)                                                                  \
	__print_symbolic(value, { CH_TRACE_CHECKPOINT_CREATED, "created" },                        \
			 { CH_TRACE_CHECKPOINT_DELETED, "deleted" },                               \
			 { CH_TRACE_CHECKPOINT_SYNCED, "synced" })

#define ch_show_error(value)                                                                       \
	__print_symbolic(value, { CH_TRACE_ERROR_FAST_READ, "fast-read" },                         \
			 { CH_TRACE_ERROR_FAST_WRITE, "fast-write" },                              \
			 { CH_TRACE_ERROR_FAST_FLUSH, "fast-flush" },                              \
			 { CH_TRACE_ERROR_FAST_CRC, "fast-crc" },                                  \
			 { CH_TRACE_ERROR_SLOW_READ, "slow-read" },                                \
			 { CH_TRACE_ERROR_SLOW_WRITE, "slow-write" },                              \
			 { CH_TRACE_ERROR_SLOW_FLUSH, "slow-flush" },                              \
			 { CH_TRACE_ERROR_MEMORY, "memory" },                                      \
			 { CH_TRACE_ERROR_LINE_CRC, "line-crc" })

/* A write was given its place in the log. seq is that of its record. */
TRACE_EVENT(cohost_write,
	TP_PROTO(dev_t dev, u64 sector, u32 bytes, u64 seq, bool fua),
	TP_ARGS(dev, sector, bytes, seq, fua),
	TP_STRUCT__entry(
		__field(u64, sector)
		__field(u64, seq)
		__field(u32, dev)
		__field(u32, bytes)
		__field(u8, fua)
	),
	TP_fast_assign(
		__entry->sector = sector;
		__entry->seq = seq;
		__entry->dev = dev;
		__entry->bytes = bytes;
		__entry->fua = fua;
	),
	TP_printk("dev=%u:%u sector=%llu bytes=%u seq=%llu fua=%u", MAJOR(__entry->dev),
		  MINOR(__entry->dev), __entry->sector, __entry->bytes, __entry->seq,
		  __entry->fua)
);

/* Where a read will be answered from. */
TRACE_EVENT(cohost_read,
	TP_PROTO(dev_t dev, u64 sector, u32 bytes, enum ch_trace_source source),
	TP_ARGS(dev, sector, bytes, source),
	TP_STRUCT__entry(
		__field(u64, sector)
		__field(u32, dev)
		__field(u32, bytes)
		__field(u8, source)
	),
	TP_fast_assign(
		__entry->sector = sector;
		__entry->dev = dev;
		__entry->bytes = bytes;
		__entry->source = source;
	),
	TP_printk("dev=%u:%u sector=%llu bytes=%u source=%s", MAJOR(__entry->dev),
		  MINOR(__entry->dev), __entry->sector, __entry->bytes,
		  ch_show_source(__entry->source))
);

/* A write to the log ended; records up to seq are durable if flushed and error is 0. */
TRACE_EVENT(cohost_commit,
	TP_PROTO(dev_t dev, u64 seq, u32 requests, u32 bytes, bool flushed, int error),
	TP_ARGS(dev, seq, requests, bytes, flushed, error),
	TP_STRUCT__entry(
		__field(u64, seq)
		__field(u32, dev)
		__field(u32, requests)
		__field(u32, bytes)
		__field(int, error)
		__field(u8, flushed)
	),
	TP_fast_assign(
		__entry->seq = seq;
		__entry->dev = dev;
		__entry->requests = requests;
		__entry->bytes = bytes;
		__entry->error = error;
		__entry->flushed = flushed;
	),
	TP_printk("dev=%u:%u seq=%llu requests=%u bytes=%u flushed=%u error=%d",
		  MAJOR(__entry->dev), MINOR(__entry->dev), __entry->seq, __entry->requests,
		  __entry->bytes, __entry->flushed, __entry->error)
);

/* A write to the slow device ended. */
TRACE_EVENT(cohost_destage,
	TP_PROTO(dev_t dev, u64 sector, u32 bytes, u64 seq, int error),
	TP_ARGS(dev, sector, bytes, seq, error),
	TP_STRUCT__entry(
		__field(u64, sector)
		__field(u64, seq)
		__field(u32, dev)
		__field(u32, bytes)
		__field(int, error)
	),
	TP_fast_assign(
		__entry->sector = sector;
		__entry->seq = seq;
		__entry->dev = dev;
		__entry->bytes = bytes;
		__entry->error = error;
	),
	TP_printk("dev=%u:%u sector=%llu bytes=%u seq=%llu error=%d", MAJOR(__entry->dev),
		  MINOR(__entry->dev), __entry->sector, __entry->bytes, __entry->seq,
		  __entry->error)
);

TRACE_EVENT(cohost_checkpoint,
	TP_PROTO(dev_t dev, enum ch_trace_checkpoint what, u64 epoch, u64 seq),
	TP_ARGS(dev, what, epoch, seq),
	TP_STRUCT__entry(
		__field(u64, epoch)
		__field(u64, seq)
		__field(u32, dev)
		__field(u8, what)
	),
	TP_fast_assign(
		__entry->epoch = epoch;
		__entry->seq = seq;
		__entry->dev = dev;
		__entry->what = what;
	),
	TP_printk("dev=%u:%u what=%s epoch=%llu seq=%llu", MAJOR(__entry->dev),
		  MINOR(__entry->dev), ch_show_checkpoint(__entry->what), __entry->epoch,
		  __entry->seq)
);

/* Somebody waited for an absent granule, and it is there, or cannot be had. */
TRACE_EVENT(cohost_hydrate,
	TP_PROTO(dev_t dev, u64 sector, u64 waited_us, int error),
	TP_ARGS(dev, sector, waited_us, error),
	TP_STRUCT__entry(
		__field(u64, sector)
		__field(u64, waited_us)
		__field(u32, dev)
		__field(int, error)
	),
	TP_fast_assign(
		__entry->sector = sector;
		__entry->waited_us = waited_us;
		__entry->dev = dev;
		__entry->error = error;
	),
	TP_printk("dev=%u:%u sector=%llu waited_us=%llu error=%d", MAJOR(__entry->dev),
		  MINOR(__entry->dev), __entry->sector, __entry->waited_us, __entry->error)
);

TRACE_EVENT(cohost_error,
	TP_PROTO(dev_t dev, enum ch_trace_error what, u64 sector, int error),
	TP_ARGS(dev, what, sector, error),
	TP_STRUCT__entry(
		__field(u64, sector)
		__field(u32, dev)
		__field(int, error)
		__field(u8, what)
	),
	TP_fast_assign(
		__entry->sector = sector;
		__entry->dev = dev;
		__entry->error = error;
		__entry->what = what;
	),
	TP_printk("dev=%u:%u what=%s sector=%llu error=%d", MAJOR(__entry->dev),
		  MINOR(__entry->dev), ch_show_error(__entry->what), __entry->sector,
		  __entry->error)
);

#endif /* CH_TRACE_H */

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH kmod
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>
