# The three loops of float.h, x86-64, System V calls: rdi = from, rsi = into, rdx = flag.

        .macro  enter                   # with what a debugger needs to look through it
        .irp    r, rbx, r12, r13, r14, r15
        push    %\r
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %\r, 0
        .endr
        sub     $24, %rsp
        .cfi_adjust_cfa_offset 24
        stmxcsr (%rsp)                  # the caller's own
        fnstcw  8(%rsp)
        ldmxcsr 2176(%rdi)
        fninit
        .irp    i, 7, 6, 5, 4, 3, 2, 1, 0
        fldl    2048+8*\i(%rdi)
        .endr
        fldcw   2180(%rdi)              # last: fninit set it
        mov     2184(%rdi), %rbx
        mov     2192(%rdi), %r12
        mov     2200(%rdi), %r13
        mov     2208(%rdi), %r14
        mov     2216(%rdi), %r15
        mov     2224(%rdi), %r11
        .endm

        .macro  spin
        movw    $1, 2182(%rsi)
1:      pause
        cmpl    $0, (%rdx)
        je      1b
        .endm

        .macro  leave_
        mov     %rbx, 2184(%rsi)
        mov     %r12, 2192(%rsi)
        mov     %r13, 2200(%rsi)
        mov     %r14, 2208(%rsi)
        mov     %r15, 2216(%rsi)
        mov     %r11, 2224(%rsi)
        stmxcsr 2176(%rsi)
        fnstcw  2180(%rsi)
        .irp    i, 0, 1, 2, 3, 4, 5, 6, 7
        fstpl   2048+8*\i(%rsi)
        .endr
        fninit
        ldmxcsr (%rsp)
        fldcw   8(%rsp)
        add     $24, %rsp
        .cfi_adjust_cfa_offset -24
        .irp    r, r15, r14, r13, r12, rbx
        pop     %\r
        .cfi_adjust_cfa_offset -8
        .endr
        ret
        .endm

        .text
        .globl  hold_sse, hold_avx, hold_avx512
        .type   hold_sse, @function
hold_sse:
        .cfi_startproc
        enter
        .irp    i, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
        movdqu  64*\i(%rdi), %xmm\i
        .endr
        spin
        .irp    i, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
        movdqu  %xmm\i, 64*\i(%rsi)
        .endr
        leave_
        .cfi_endproc
        .size   hold_sse, . - hold_sse

        .type   hold_avx, @function
hold_avx:
        .cfi_startproc
        enter
        .irp    i, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
        vmovdqu 64*\i(%rdi), %ymm\i
        .endr
        spin
        .irp    i, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
        vmovdqu %ymm\i, 64*\i(%rsi)
        .endr
        vzeroupper
        leave_
        .cfi_endproc
        .size   hold_avx, . - hold_avx

        .type   hold_avx512, @function
hold_avx512:
        .cfi_startproc
        enter
        .irp    i, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
        vmovdqu64 64*\i(%rdi), %zmm\i
        .endr
        .irp    i, 1,2,3,4,5,6,7
        kmovq   2112+8*\i(%rdi), %k\i
        .endr
        spin
        .irp    i, 1,2,3,4,5,6,7
        kmovq   %k\i, 2112+8*\i(%rsi)
        .endr
        .irp    i, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
        vmovdqu64 %zmm\i, 64*\i(%rsi)
        .endr
        vzeroupper
        leave_
        .cfi_endproc
        .size   hold_avx512, . - hold_avx512

        .section .note.GNU-stack, "", @progbits
