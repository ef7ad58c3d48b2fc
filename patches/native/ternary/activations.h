// Activations of a matrix product, quantised to int8 and laid out for the kernels.
#pragma once

#include "layout.h"

namespace edgellm::ternary {

// Where everything lies in a work buffer for n_tokens x n_columns activations.
class quantizer {
  public:
    // `by_segment`: a scale for each 256 columns instead of one a token; n_columns % 256 == 0 then.
    quantizer(const kernels & k, void * buffer, int64_t n_tokens, int64_t n_columns, bool by_segment, int n_threads);

    static size_t work_size(const kernels & k, int64_t n_tokens, int64_t n_columns, int n_threads);

    // Token `token` from its n_columns floats. Different tokens may be done by different threads at once.
    void add(int64_t token, const float * x, int thread) const;

    // Zeroes the tokens that only fill up the last tile; by one thread, once.
    void pad() const;

    activations result() const;

  private:
    int64_t width_of(int64_t tile) const;
    void    place(int64_t token, const int8_t * row) const;

    const kernels & k_;
    int8_t  * q_;
    float   * factors_;
    int32_t * sums_;
    int8_t  * rows_;  // one row a thread, before it is laid out
    int64_t   n_tokens_;
    int64_t   n_columns_;
    int64_t   n_segments_;
};

}  // namespace edgellm::ternary
