// Activations of a matrix product, quantised to int8 and laid out for the kernels.
#pragma once

#include "kernels.h"

namespace edgellm::ternary {

// The same kernels, for activations of which each row lies by itself, as a single token does.
kernels one_by_one(const kernels & k);

// Where everything lies in a work buffer for n_tokens x n_columns activations.
class quantizer {
  public:
    // A scale for each `segment_columns` of a token, which divide n_columns.
    quantizer(const kernels & k, void * buffer, int64_t n_tokens, int64_t n_columns, int64_t segment_columns,
              int n_threads);

    static size_t work_size(const kernels & k, int64_t n_tokens, int64_t n_columns, int64_t segment_columns,
                            int n_threads);

    // Token `token` from its n_columns floats. Different tokens may be done by different threads at once.
    void add(int64_t token, const float * x, int thread) const;

    // Token `token` from a row of activations that are laid out for `one_by_one` kernels.
    void copy(int64_t token, const activations & rows, int64_t row) const;

    // Zeroes the tokens that only fill up the last tile; by one thread, once.
    void pad() const;

    activations result() const;

    // The same for one row of `one_by_one` kernels.
    activations row(int64_t token) const;

  private:
    int32_t offset_of(const float * x, float s, int8_t * q, int64_t n) const;
    int64_t width_of(int64_t tile) const;
    void    place(int64_t token, const int8_t * row) const;

    const kernels & k_;
    int8_t  * q_;
    float   * factors_;
    int32_t * offsets_;
    int8_t  * rows_;  // one row a thread, before it is laid out
    int64_t   n_tokens_;
    int64_t   n_columns_;
    int64_t   n_segments_;
    int64_t   n_offsets_;  // of a token
};

}  // namespace edgellm::ternary
