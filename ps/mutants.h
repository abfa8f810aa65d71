// Bugs planted on purpose, to prove that the simulation finds them. In what is shipped BASIN_MUTANT is a constant
// false; the library basin_ps_mutants is compiled with -DBASIN_MUTANTS, and there one bug at a time is chosen by a
// test.
#pragma once

namespace basin {

enum class Mutant {
  kNone,
  kAcknowledgeBeforeApply,     // now and then answers OK for a push whose values were dropped
  kAcceptGap,                  // applies a sequence beyond last + 1
  kApplyRepeat,                // applies a sequence that was applied before
  kSkipFence,                  // takes messages of a replaced life
  kCountLostLeaseAsDone,       // counts a piece whose lease went back
  kReuseIncarnation,           // gives a replacement its predecessor's incarnation
  kHandOutPieceTwice,          // leases a piece that is leased
  kForgetSequenceOnReconnect,  // a repeated Hello clears the sequence records
  kServeTornShard,             // writes in place although a reply still holds the block
  kBarrierReleasesEarly,       // does not wait for the last one
  kClockGoesBack,              // takes a Step older than the clock
  kRefusedPushUsesSequence,    // a refused push counts as the sequence's
  kForgetToRecordBucket,       // now and then does not record a push of rows that it applied
  kForgetBucketsOnReconnect,   // a repeated Hello clears the buckets' sequence records
  kApplyRowsOfRefusedPush,     // applies those rows of a refused push that are finite
};

#ifdef BASIN_MUTANTS
inline Mutant planted_mutant = Mutant::kNone;
#define BASIN_MUTANT(name) (::basin::planted_mutant == ::basin::Mutant::name)
#else
#define BASIN_MUTANT(name) false
#endif

}  // namespace basin
